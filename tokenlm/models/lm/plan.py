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
    """

    def __init__(
        self,
        layout: LayoutName,
        *,
        block_text: int,
        block_speech: int,
        prompt_text: Sequence[int] = (),
        prompt_tokens: Sequence[int] = (),
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
        self._text = list(prompt_text)
        self._speech = list(prompt_tokens)
        self._left_in_block = 0
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
        self.pending = Layout(
            pending.kinds[count:], pending.ids[count:], pending.targets[count:]
        )

    def _proceed(self) -> None:
        if self.layout == "one_shot" and not self._has_ended:
            self.pending.add(TEXT, self._text)
            self._text = []
            return
        while not self.predicts:
            if self._left_in_block == 0 and not self.has_turned:
                if self.layout == "interleaved" and len(self._text) >= self.block_text:
                    self.pending.add(TEXT, self._text[: self.block_text])
                    self._text = self._text[self.block_text :]
                    self._left_in_block = self.block_speech
                elif self._has_ended:
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
            self.predicts = self.has_turned or self._left_in_block > 0
