"""The order in which a sequence is read and written while its text is still coming in.

What stands where is that of `layout`; here it is found out position by position, as a function of
the text and speech tokens alone, never of when they arrive.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

from tokenlm.models.lm.layout import SOS, SPECIAL, SPEECH, TEXT, TOS, Layout

LayoutName = Literal["one_shot", "interleaved"]


class Plan:
    """A sequence that grows: text and speech go in, positions to be read by the model come out.

    In the one-shot layout the speech starts when the text has ended; in the interleaved one after
    every block of text. The tokens of a prompt are speech that need not be predicted.

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
        self.has_turned = False
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
        self._proceed()

    @property
    def needs_text(self) -> bool:
        """Whether nothing can be predicted before there is more text, or its end."""
        return not self.predicts

    def copy(self) -> Plan:
        """The same sequence up to here, to go on differently."""
        return copy.deepcopy(self)

    def add_text(self, tokens: Sequence[int]) -> None:
        """Takes the next text tokens."""
        assert not self._has_ended
        self.num_text += len(tokens)
        self._text += tokens
        self._proceed()

    def end_text(self) -> None:
        """The text is complete."""
        if not self._has_ended:
            self._has_ended = True
            self._proceed()

    def add_speech(self, token: int) -> None:
        """Takes the speech token that was predicted."""
        assert self.predicts
        self.pending.add(SPEECH, [token])
        self._last_spoken = token
        if not self.has_turned:
            self._left_in_block -= 1
            self.predicts = self._left_in_block > 0
            self._proceed()

    def take(self) -> tuple[list[int], list[int]]:
        """Kinds and ids of all positions that the model is to read now, which is then done."""
        taken = self.peek(len(self.pending))
        self.drop(len(self.pending))
        return taken

    def peek(self, count: int) -> tuple[list[int], list[int]]:
        """Kinds and ids of the next `count` positions that the model is to read."""
        return self.pending.kinds[:count], self.pending.ids[:count]

    def drop(self, count: int) -> None:
        """The model has read the next `count` positions."""
        pending = self.pending
        self.pending = Layout(pending.kinds[count:], pending.ids[count:], pending.targets[count:])

    def _proceed(self) -> None:
        if self.layout == "one_shot" and not self._has_ended:
            self.pending.add(TEXT, self._text)
            self._text = []
            return
        while not self.predicts:
            if self._left_in_block == 0 and not self.has_turned:
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
                    self.has_turned = True
                else:
                    return
            count = len(self._speech) if self.has_turned else self._left_in_block
            known, self._speech = self._speech[:count], self._speech[count:]
            self.pending.add(SPEECH, known)
            if not self.has_turned:
                self._left_in_block -= len(known)
                if self.as_reference and known and not self._speech and not self._left_in_block:
                    self._left_in_block = self.block_speech
            self.predicts = self.has_turned or self._left_in_block > 0

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
