"""Pronunciations of a user reach the speech: whole and streamed, of request, voice and bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.text.pronunciation import LexiconError

TEXT = "Nguyen's GIFs, is it so? The 北京 GIF."
LEXICON = {"Nguyen": "w ih1 n", "GIF": "/dʒɪf/", "北京": "b ey1 jh ih1 ng"}


@pytest.fixture(scope="module")
def synthesizer(phoneme_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(phoneme_bundle)


def phones(synthesizer: Synthesizer, text: str = TEXT, **options: Any) -> str:
    """What the LM is given to say."""
    session = synthesizer.open_session(text, **options)
    decode = synthesizer.components.text_tokenizer.decode
    return " / ".join(decode(segment.tokens) for segment in session.text.segments)


def test_the_lm_is_given_the_phones(synthesizer: Synthesizer) -> None:
    said = phones(synthesizer, lexicon=LEXICON)
    assert said.startswith("w ih1 n z | jh ih1 f s , | ih1 z | ih1 t | s ow1 ?")
    assert said.endswith("| b ey1 jh ih1 ng | jh ih1 f .")
    assert not phones(synthesizer).startswith("w ih1 n z")


def test_streams_say_what_the_whole_says(synthesizer: Synthesizer) -> None:
    whole = synthesizer.generate(TEXT, lexicon=LEXICON, seed=3)
    assert not torch.equal(whole, synthesizer.generate(TEXT, seed=3))
    streamed = torch.cat([*synthesizer.stream(TEXT, lexicon=LEXICON, seed=3)])
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)
    said = []
    for pieces in (list(TEXT), [TEXT[:3], TEXT[3:]]):
        stream = synthesizer.stream(iter(pieces), lexicon=LEXICON, seed=3)
        said.append(torch.cat([*stream]))
        assert stream.foreign_words == []
        assert stream.unlisted_words == ["the"]
    assert torch.equal(*said)


def test_a_request_wins_over_its_voice_and_that_over_the_bundle(
    phoneme_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(phoneme_bundle, folder)
    (folder / "pronunciations.txt").write_text("so  z ow1\nit  d\nyes  y eh1\n", encoding="utf-8")
    synthesizer = Synthesizer.from_pretrained(folder)
    assert phones(synthesizer, "it so yes") == "d | z ow1 | y eh1 ."
    loaded = Synthesizer.from_pretrained(folder, lexicon={"yes": "/jæ/"})
    assert phones(loaded, "it so yes") == "d | z ow1 | y ae1 ."
    voice = replace(loaded.voice("ann"), lexicon="so  sh ow1\nyes  y ow1\n")
    voice.save(tmp_path / "a.voice")
    voice = Voice.load(tmp_path / "a.voice")
    assert voice.lexicon == "so  sh ow1\nyes  y ow1\n"
    assert phones(loaded, "it so yes", voice=voice) == "d | sh ow1 | y ow1 ."
    said = phones(loaded, "it so yes", voice=voice, lexicon={"yes": "y uw1"})
    assert said == "d | sh ow1 | y uw1 ."


def test_a_voice_without_a_lexicon_is_written_as_before(
    synthesizer: Synthesizer, tmp_path: Path
) -> None:
    path = synthesizer.components.folder / "voices" / "ann.voice"
    Voice.load(path).save(tmp_path / "ann.voice")
    assert (tmp_path / "ann.voice").read_bytes() == path.read_bytes()


def test_mistakes_are_sentences(synthesizer: Synthesizer, tiny_bundle: Path) -> None:
    with pytest.raises(LexiconError, match="'nguyen': the text tokenizer .* has no phone 'zh'"):
        synthesizer.generate("x", lexicon={"Nguyen": "zh uh1 n"})
    with pytest.raises(LexiconError, match="reads letters, not phones"):
        Synthesizer.from_pretrained(tiny_bundle).stream("x", lexicon={"Nguyen": "w ih1 n"})
