"""Layouts of text and speech in one sequence, whole or while text and speech are still coming in.

Every position has a kind (what table its id is looked up in), an id, and a target: the speech
class to be predicted there, or IGNORE. Classes 0 … codebook_size - 1 are codes; the two after them
are eos and fill. The layouts are those of CosyVoice 2 (Du et al., 2024, section 2.3).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

LayoutName = Literal["one_shot", "interleaved"]

TEXT, SPEECH, SPECIAL = 0, 1, 2
"""Kinds of positions."""

SOS, TOS = 0, 1
"""Ids of the special positions: start of sequence, turn of speech."""

IGNORE = -100
"""Target of a position where nothing is predicted."""


def eos_class(codebook_size: int) -> int:
    """Class that ends the speech."""
    return codebook_size


def fill_class(codebook_size: int) -> int:
    """Class that asks for the next block of text; also an input, id = class."""
    return codebook_size + 1


@dataclass
class Layout:
    """A sequence, position by position."""

    kinds: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, kind: int, ids: Sequence[int], targets: Sequence[int] | None = None) -> None:
        """Appends positions of one kind; without `targets` nothing is predicted there."""
        self.kinds += [kind] * len(ids)
        self.ids += ids
        self.targets += [IGNORE] * len(ids) if targets is None else targets

    @property
    def num_targets(self) -> int:
        """Positions that predict something."""
        return sum(target != IGNORE for target in self.targets)


def one_shot(
    text: Sequence[int],
    speech: Sequence[int],
    codebook_size: int,
    *,
    instruction: Sequence[int] = (),
) -> Layout:
    """`<sos> text <tos> speech`, predicting speech and eos from `<tos>` on.

    An instruction is text that stands before the text, right after `<sos>`.
    """
    layout = Layout()
    layout.add(SPECIAL, [SOS])
    layout.add(TEXT, list(instruction))
    layout.add(TEXT, list(text))
    targets = [*speech, eos_class(codebook_size)]
    layout.add(SPECIAL, [TOS], targets[:1])
    layout.add(SPEECH, list(speech), targets[1:])
    return layout


def one_shot_prefix(text: Sequence[int], speech: Sequence[int]) -> Layout:
    """`<sos> text <tos> speech`, to be continued: prompt text + text, and speech of the prompt."""
    layout = Layout()
    layout.add(SPECIAL, [SOS])
    layout.add(TEXT, list(text))
    layout.add(SPECIAL, [TOS])
    layout.add(SPEECH, list(speech))
    return layout


def fits_interleaved(num_text: int, num_speech: int, block_text: int, block_speech: int) -> bool:
    """Whether a sample may be interleaved: its speech must outlast its text, block by block."""
    return num_speech * block_text > num_text * block_speech


def interleaved(
    text: Sequence[int],
    speech: Sequence[int],
    codebook_size: int,
    *,
    block_text: int,
    block_speech: int,
    instruction: Sequence[int] = (),
) -> Layout:
    """`<sos>`, blocks of m text and n speech positions, then rest of text, `<tos>`, rest of speech.

    The last text position of a block predicts the block's first speech token, and its last speech
    position predicts fill. An instruction stands right after `<sos>` and is in no block.

    Raises:
        ValueError: the speech is too short for its text (see `fits_interleaved`).
    """
    if not fits_interleaved(len(text), len(speech), block_text, block_speech):
        raise ValueError(
            f"{len(speech)} speech tokens are too few to be interleaved with {len(text)} text "
            f"tokens at {block_text}:{block_speech}"
        )
    layout = Layout()
    layout.add(SPECIAL, [SOS])
    layout.add(TEXT, list(instruction))
    position = 0
    for start in range(0, len(text) - block_text + 1, block_text):
        block = list(speech[position : position + block_speech])
        position += block_speech
        targets = [*block, fill_class(codebook_size)]
        ignored = [IGNORE] * (block_text - 1)
        layout.add(TEXT, list(text[start : start + block_text]), [*ignored, targets[0]])
        layout.add(SPEECH, block, targets[1:])
    layout.add(TEXT, list(text[len(text) - len(text) % block_text :]))
    rest = list(speech[position:])
    targets = [*rest, eos_class(codebook_size)]
    layout.add(SPECIAL, [TOS], targets[:1])
    layout.add(SPEECH, rest, targets[1:])
    return layout


class InputSequence:
    """The input of the LM while text and speech are still coming in.

    Text and speech tokens go in, positions to be read by the model come out, those of `one_shot` or
    `interleaved`. They depend on the tokens alone, never on when these arrive. In the one-shot
    layout the speech starts when the text has ended; in the interleaved one after every block of
    text. The tokens of a prompt are speech that need not be predicted.

    The positions are those of training, which weights of ours and those of CosyVoice have seen.
    With `as_reference` they are those that the inference of CosyVoice feeds for a text whose ids
    come one by one. It leaves the layout that its own weights were trained with in four places:

    * where the text ends right behind a block of speech, the last speech token is read twice;
    * where a prompt ends with a block, a further block of speech follows without text;
    * what is left of a prompt's speech when the text ends is dropped;
    * each id of text that comes lets one block be spoken, so that the last blocks of a short text
      behind a long prompt stay unspoken until `<tos>`, all their text together.

    No weights have seen any of it in training, and nothing was measured that speaks for it: it is
    there to compare numbers with the reference, and is off for imported bundles, too.
    """

    def __init__(
        self,
        layout: LayoutName,
        *,
        block_text: int,
        block_speech: int,
        prompt_text: Sequence[int] = (),
        prompt_tokens: Sequence[int] = (),
        as_reference: bool = False,
    ) -> None:
        self.layout: LayoutName = layout
        self.block_text, self.block_speech = block_text, block_speech
        self.pending = Layout()
        """Positions that the model has not read yet."""
        self.predicts = False
        """Whether a speech token comes next."""
        self.is_past_tos = False
        """Whether `<tos>` has been passed: from there on the speech may end."""
        self.num_text = 0
        """Text tokens besides the prompt's."""
        self.prompt_tokens = list(prompt_tokens)
        """Speech tokens of the prompt."""
        self.as_reference = as_reference
        self._num_prompt_text = len(prompt_text)
        self._text = list(prompt_text)
        self._speech = list(prompt_tokens)
        self._left_in_block = 0
        self._last_spoken: int | None = None
        self._num_arrived = 0
        """Text tokens, besides the prompt's, that had come when the last block began."""
        self._has_ended = False
        self.pending.add(SPECIAL, [SOS])
        self._advance()

    @property
    def needs_text(self) -> bool:
        """Whether nothing can be predicted before there is more text, or its end."""
        return not self.predicts

    @property
    def left_in_block(self) -> int:
        """Speech tokens that the block has room for; 0 past `<tos>`."""
        return self._left_in_block

    def copy(self) -> InputSequence:
        """A copy that can be continued on its own."""
        return copy.deepcopy(self)

    def add_text(self, tokens: Sequence[int]) -> None:
        """Appends text tokens."""
        assert not self._has_ended
        self.num_text += len(tokens)
        self._text += tokens
        self._advance()

    def end_text(self) -> None:
        """Marks the text as complete."""
        if not self._has_ended:
            self._has_ended = True
            self._advance()

    def add_speech(self, token: int) -> None:
        """Appends the speech token that was predicted."""
        assert self.predicts
        self.pending.add(SPEECH, [token])
        self._last_spoken = token
        if not self.is_past_tos:
            self._left_in_block -= 1
            self.predicts = self._left_in_block > 0
            self._advance()

    def take(self) -> tuple[list[int], list[int]]:
        """Removes all pending positions; their kinds and ids."""
        taken = self.peek(len(self.pending))
        self.drop(len(self.pending))
        return taken

    def peek(self, count: int) -> tuple[list[int], list[int]]:
        """Kinds and ids of the next `count` pending positions."""
        return self.pending.kinds[:count], self.pending.ids[:count]

    def drop(self, count: int) -> None:
        """Removes the next `count` pending positions: the model has read them."""
        pending = self.pending
        self.pending = Layout(pending.kinds[count:], pending.ids[count:], pending.targets[count:])

    def _advance(self) -> None:
        if self.layout == "one_shot" and not self._has_ended:
            self.pending.add(TEXT, self._text)
            self._text = []
            return
        while not self.predicts:
            if self._left_in_block == 0 and not self.is_past_tos:
                if self.layout == "interleaved" and self._begins_block():
                    self.pending.add(TEXT, self._text[: self.block_text])
                    self._text = self._text[self.block_text :]
                    self._left_in_block = self.block_speech
                elif self._has_ended:
                    if self.as_reference and self.layout == "interleaved":
                        again = [] if self._last_spoken is None else [self._last_spoken]
                        self.pending.add(SPEECH, again)
                        self._speech = []
                    self.pending.add(TEXT, self._text)
                    self._text = []
                    self.pending.add(SPECIAL, [TOS])
                    self.is_past_tos = True
                else:
                    return
            count = len(self._speech) if self.is_past_tos else self._left_in_block
            known, self._speech = self._speech[:count], self._speech[count:]
            self.pending.add(SPEECH, known)
            if not self.is_past_tos:
                self._left_in_block -= len(known)
                if self.as_reference and known and not self._speech and not self._left_in_block:
                    self._left_in_block = self.block_speech
            self.predicts = self.is_past_tos or self._left_in_block > 0

    def _begins_block(self) -> bool:
        """Whether the text is there that a block begins with."""
        if len(self._text) < self.block_text:
            return False
        if self.as_reference:
            read = self._num_prompt_text + self.num_text - len(self._text)
            needed = read + self.block_text - self._num_prompt_text
            # Blocks of the prompt's speech come together, others each with an id of text.
            arrived = max(self._num_arrived + (not self._speech), needed, 1)
            if arrived > self.num_text:
                return False
            self._num_arrived = arrived
        return True
