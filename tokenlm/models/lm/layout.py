"""Layouts of text and speech in one sequence, as pure functions over lists.

Every position has a kind (what table its id is looked up in), an id, and a target: the speech
class to be predicted there, or IGNORE. Classes 0 … codebook_size - 1 are codes; the two after them
are eos and fill. The layouts are those of CosyVoice 2 (Du et al., 2024, section 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    """`<sos> text <tos> speech` to go on from: text is prompt text + text, speech the prompt's."""
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
