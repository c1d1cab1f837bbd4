"""Consent: sentences, what is heard of them, evidence and its signature, and the command line."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner
from verb_runner import run_verb

from inference.commands.bundle import inspect
from inference.commands.consent import describe_consent
from inference.commands.voices import prepare_voice
from inference.consent import verification
from inference.consent.challenge import MAX_CHALLENGES, WORDS, Challenge, Challenges
from inference.consent.evidence import (
    ConsentError,
    Evidence,
    SigningKey,
    check_signature,
    read_evidence,
    store_unsigned,
)
from inference.consent.manager import ConsentManager
from inference.consent.settings import ConsentConfig
from inference.consent.verification import ConsentVerifier, Decision
from inference.consent.words import other_statements, score_words
from tokenlm.audio.resample import resample
from tokenlm.checkpoint.adapter import AdapterBase, AdapterConfig, PartChange, save_adapter
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.voice import clean_recording

RATE = 16_000
CHALLENGE = Challenge(id="a", who="Ann", words=("river", "seven", "lemon"), issued_at=0.0)


class Bands(SpeakerEncoder):
    """Tells tones apart: its embedding is how loud each band of 50 Hz is."""

    def __init__(self) -> None:
        super().__init__(SpeakerEncoderConfig(dim=8, num_layers=1, embedding_dim=8))

    def embed_recording(self, waveform: Tensor) -> Tensor:
        power = torch.fft.rfft(waveform, n=RATE).abs()[: 50 * 40]
        return functional.normalize(power.unflatten(0, (40, 50)).sum(dim=1), dim=0)


class Ear:
    """Hears what it is told to hear, whatever the recording."""

    def __init__(self, heard: str) -> None:
        self.heard = heard.lower().split()

    def log_probabilities(self, waveform: Tensor, texts: Sequence[str]) -> list[float]:
        return [-40.0 * Levenshtein.distance(self.heard, text.lower().split()) for text in texts]


class Parts:
    """Of a bundle, what listens."""

    has_token_recognizer = False
    device = "cpu"
    manifest = type("Manifest", (), {"name": "tones"})
    speaker_encoder = Bands()


def person(hertz: float, seconds: float = 5.0, rate: int = RATE) -> Tensor:
    """A tone with some of all frequencies in it, as a recording has."""
    time = torch.arange(int(seconds * rate)) / rate
    noise = torch.randn(time.shape, generator=torch.Generator().manual_seed(0))
    return 0.2 * torch.sin(2 * math.pi * hertz * time) + 0.002 * noise


def decide(sentence: Tensor, sample: Tensor, *, heard: str = CHALLENGE.sentence,
           rate: int = RATE) -> Decision:  # fmt: skip
    verifier = ConsentVerifier(cast(Any, Parts()), ConsentConfig(), scorer=Ear(heard))
    return verifier.verify(CHALLENGE, sentence, rate, sample, RATE)


# --- Sentences ---


def test_words_that_are_drawn() -> None:
    assert len(WORDS) == len(set(WORDS)) == 128 and all(word.isalpha() for word in WORDS)
    challenges = Challenges()
    drawn = [challenges.issue("  Ann   Example ") for _ in range(50)]
    assert len({one.words for one in drawn}) == 50 and len({one.id for one in drawn}) == 50
    words = drawn[0].words
    assert drawn[0].sentence == (
        f"I, Ann Example, let tokenlm copy my voice. {words[0].capitalize()}, {words[1]}, "
        f"{words[2]}."
    )
    for who in ("", "\n", "a\0b", "x" * 201):
        with pytest.raises(ConsentError):
            challenges.issue(who)


def test_a_sentence_is_fresh_and_used_once() -> None:
    now = [1000.0]
    challenges = Challenges(now=lambda: now[0])
    first, second = challenges.issue("Ann"), challenges.issue("Ann")
    assert challenges.take(first.id) == first
    with pytest.raises(ConsentError, match="used already"):
        challenges.take(first.id)
    now[0] += 299
    third = challenges.issue("Ann")
    now[0] += 2
    with pytest.raises(ConsentError, match="5 minutes"):
        challenges.take(second.id)
    assert challenges.take(third.id) == third
    oldest = challenges.issue("Ann")
    for _ in range(MAX_CHALLENGES):
        challenges.issue("Bob")
    with pytest.raises(ConsentError):
        challenges.take(oldest.id)


# --- What is heard ---


@pytest.mark.parametrize(
    ("heard", "is_good"),
    [("I, Ann, let tokenlm copy my voice. River, seven, lemon.", True),
     ("I, Ann, let tokenlm copy my voice. River, monday, lemon.", False),
     ("I, Ann, let tokenlm copy my voice. Needle, orange, monday.", False),
     ("I, Ann, let tokenlm copy my voice. River, lemon.", False),
     ("I, Ann, let tokenlm copy my voice. River, seven.", False),
     ("I, Ann, let tokenlm copy my voice.", False),
     ("I, Ann, do not let tokenlm copy my voice. River, seven, lemon.", False),
     ("I, Ann, never let tokenlm copy my voice. River, seven, lemon.", False),
     ("I, John Smith, let tokenlm copy my voice. River, seven, lemon.", False),
     ("I let tokenlm copy my voice. River, seven, lemon.", False),
     ("River, seven, lemon.", False)],
)  # fmt: skip
def test_words_compete(heard: str, is_good: bool) -> None:
    score = score_words(Ear(heard), person(200), CHALLENGE)
    assert (score.lowest > 0) is is_good
    assert decide(person(200), person(205), heard=heard).accepted is is_good


def test_a_name_does_not_compete_with_one_like_it() -> None:
    smythe = replace(CHALLENGE, who="Jon Smythe")
    rivals = other_statements(smythe)
    assert not any("John Smith" in rival for rival in rivals)
    assert any("Maria Garcia" in rival for rival in rivals) and smythe.statement not in rivals


def test_persons() -> None:
    assert decide(person(200), person(203)).accepted
    other = decide(person(410), person(200))
    assert not other.accepted and any("not the same person" in reason for reason in other.reasons)
    spliced = torch.cat([person(200, 3.0), person(410, 3.0)])
    for sentence, sample in ((spliced, person(200)), (person(200), spliced), (spliced, spliced)):
        decision = decide(sentence, sample)
        assert not decision.accepted
        assert any("another person" in r or "changes within" in r for r in decision.reasons)


def test_synthetic_speech(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without weights there is no score, and nothing is refused for it."""
    assert decide(person(200), person(200)).scores["synthetic"] is None
    verifier = ConsentVerifier(cast(Any, Parts()), ConsentConfig(), scorer=Ear(CHALLENGE.sentence))
    for probability, is_good in ((0.2, True), (0.9, False)):
        detector = type("Detector", (), {"probability": lambda self, _, p=probability: p})()
        verifier._detector = detector
        decision = verifier.verify(CHALLENGE, person(200), RATE, person(200), RATE)
        assert decision.accepted is is_good and decision.scores["synthetic"] == probability
        assert is_good or "sounds synthetic" in decision.reasons[0]


@pytest.mark.parametrize(
    ("sentence", "rate", "reason"),
    [(torch.zeros(80_000), RATE, "silent"),
     (torch.zeros(0), RATE, "no sound"),
     (torch.full((80_000,), float("nan")), RATE, "no sound"),
     (torch.zeros(2, 80_000), RATE, "no sound"),
     (person(200, 1.0), RATE, "only 1.0 s"),
     (person(200, 40.0), RATE, "at most 30 s"),
     (person(200, 5.0, 8000), 8000, "8000 Hz"),
     ((10 * person(200)).clamp(-0.9, 0.9), RATE, "full scale"),
     (0.2 * torch.sin(2 * math.pi * 200 * torch.arange(80_000) / RATE), RATE, "above 4 kHz")],
    ids=["silence", "nothing", "nan", "stereo", "one second", "long", "8 kHz", "clipped", "narrow"],
)  # fmt: skip
def test_recordings_that_say_nothing(sentence: Tensor, rate: int, reason: str) -> None:
    decision = decide(sentence, person(200), rate=rate)
    assert not decision.accepted and len(decision.reasons) == 1
    assert reason in decision.reasons[0] and "sentence" in decision.reasons[0]
    assert set(decision.scores.values()) == {None}


def test_music_is_heard_to_say_nothing() -> None:
    time = torch.arange(5 * RATE) / RATE
    chord = sum(torch.sin(2 * math.pi * hertz * time) for hertz in (262, 330, 392)) * 0.1
    assert isinstance(chord, Tensor)
    decision = decide(chord + 0.002 * torch.randn(time.shape), person(200), heard="")
    assert not decision.accepted and any("not heard" in reason for reason in decision.reasons)


def test_an_error_of_the_models_is_a_decision() -> None:
    class Broken:
        def log_probabilities(self, waveform: Tensor, texts: Sequence[str]) -> list[float]:
            raise RuntimeError("too many units")

    verifier = ConsentVerifier(cast(Any, Parts()), ConsentConfig(), scorer=Broken())
    decision = verifier.verify(CHALLENGE, person(200), RATE, person(200), RATE)
    assert not decision.accepted and "cannot be scored" in decision.reasons[0]


def test_clipping_by_hand() -> None:
    wave = torch.tensor([0.1, 0.9, 0.9, 0.9, 0.1, 0.9, -0.9, 0.2, 0.9, 0.1])
    assert verification.clipped_share(wave) == pytest.approx(0.3)  # one run of three
    assert verification.clipped_share(0.1 * wave) == 0.0, "so quiet is no clipping"


@pytest.mark.parametrize(("hertz", "rate"), [(15.0, RATE), (20_000.0, 48_000)])
def test_a_sound_that_the_voice_does_not_keep_hides_nobody(hertz: float, rate: int) -> None:
    """Rumble or ultrasound over one person, while another speaks more quietly before."""
    time = torch.arange(4 * rate) / rate
    loud = 0.7 * torch.sin(2 * math.pi * hertz * time)
    ann, bob = 0.02 * person(200, 4.0, rate), 0.02 * person(410, 4.0, rate)
    sample = torch.cat([bob, ann + loud])
    heard = verification.prepare(sample, rate)
    voice = clean_recording(resample(sample, rate, 24_000), 24_000, "it")
    assert heard.shape[0] / RATE == pytest.approx(voice.shape[0] / 24_000, abs=0.001)
    assert heard.shape[0] > 7.9 * RATE


def test_only_the_sentence_may_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MAX_SECONDS", 4.0)
    assert decide(person(200, 3.0), person(203, 5.0)).accepted


# --- Evidence ---


EVIDENCE = Evidence(
    kind="spoken", who="Ann", statement=CHALLENGE.sentence, date="2030-01-01T00:00:00+00:00",
    audio_sha256="0" * 64, challenge="a", words=CHALLENGE.words, consent_sha256="1" * 64,
    scores={"words": 3.25, "speaker": 0.91, "synthetic": None, "watermark": None},
    thresholds={"words": -12.0, "speaker": 0.65, "synthetic": 0.5}, bundle="tiny",
)  # fmt: skip


@pytest.fixture(scope="module")
def voice(tiny_bundle: Path) -> Voice:
    return Voice.load(tiny_bundle / "voices" / "ann.voice")


def test_evidence_is_signed_and_survives_a_file(voice: Voice, tmp_path: Path) -> None:
    key = SigningKey.open(tmp_path / "keys" / "server.key")
    assert SigningKey.open(tmp_path / "keys" / "server.key").public == key.public
    assert check_signature(voice) == "none" and read_evidence(voice) is None
    key.sign(voice, EVIDENCE).save(tmp_path / "ann.voice")
    read = Voice.load(tmp_path / "ann.voice")
    assert read_evidence(read) == EVIDENCE and read.digest == voice.digest
    assert check_signature(read) == check_signature(read, key.public) == "valid"
    other = SigningKey.open(tmp_path / "other.key")
    assert check_signature(read, other.public) == "foreign"
    assert check_signature(store_unsigned(voice, EVIDENCE)) == "unsigned"


def test_what_was_changed_is_seen(voice: Voice, tmp_path: Path) -> None:
    signed = SigningKey.open(tmp_path / "server.key").sign(voice, EVIDENCE)
    assert signed.consent is not None
    text = json.dumps(signed.consent)
    for old, new in (('"Ann"', '"Bob"'), ("3.25", "9.25"), ("spoken", "stated")):
        assert (
            check_signature(replace(signed, consent=json.loads(text.replace(old, new))))
            == "changed"
        )
    moved = replace(voice, speaker_embedding=voice.speaker_embedding.flip(0))
    assert check_signature(replace(moved, consent=signed.consent)) == "changed"
    claimed = {**signed.consent, "voice": moved.digest}
    assert check_signature(replace(moved, consent=claimed)) == "changed"
    for signature in ("", "no base 64!", "AAAA"):
        broken = {**signed.consent, "signature": signature}
        assert check_signature(replace(signed, consent=broken)) == "changed"
    facts = signed.consent["evidence"]
    damaged = [
        {**signed.consent, "evidence": {**facts, **wrong}}
        for wrong in (
            {"scores": []}, {"scores": {"words": "x"}}, {"who": 3}, {"words": [3]},
            {"kind": "seen"},
        )
    ]  # fmt: skip
    for broken in ({}, {"evidence": 3}, {**signed.consent, "format_version": 9}, *damaged):
        with pytest.raises(ConsentError):
            read_evidence(replace(signed, consent=broken))


def test_another_adapter_is_seen(tiny_bundle: Path, voice: Voice, tmp_path: Path) -> None:
    key = SigningKey.open(tmp_path / "server.key")
    base = AdapterBase(name="tiny", fingerprint="")
    for name, value in (("me", 1.0), ("you", 2.0)):
        parts = {"vocoder": PartChange({"x": torch.tensor([value])}, {})}
        save_adapter(tmp_path / f"{name}.adapter", AdapterConfig(name=name, base=base), parts)
    tuned = replace(voice, adapter=str(tmp_path / "me.adapter"))
    key.sign(tuned, EVIDENCE).save(tmp_path / "me.voice")
    signed = Voice.load(tmp_path / "me.voice")
    assert check_signature(signed) == "valid" and signed.consent is not None
    # Another one, none, and one where there was none.
    others = (
        replace(signed, adapter=str(tmp_path / "you.adapter")),
        replace(signed, adapter=""),
        replace(key.sign(voice, EVIDENCE), adapter=signed.adapter),
        replace(signed, consent={**signed.consent, "adapter": {"name": "me.adapter"}}),
    )
    assert {check_signature(other) for other in others} == {"changed"}
    shutil.move(tmp_path / "me.adapter", tmp_path / "mine.adapter")
    assert check_signature(signed) == "valid"  # the name is known
    shutil.copytree(tmp_path / "you.adapter", tmp_path / "me.adapter")
    assert check_signature(signed) == "changed"


def test_a_statement_imitates_no_signature(voice: Voice) -> None:
    fake = replace(EVIDENCE, statement="I agree.\n  signature  valid, key AAAA")
    lines, _ = describe_consent(store_unsigned(voice, fake), None)
    assert [line for line in lines if "\n" in line] == []
    assert [line for line in lines if line.startswith("  signature")] == [
        "  signature  none: anybody may have written this"
    ]


def test_a_key_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never in the place of one that another server made meanwhile."""
    path = tmp_path / "keys" / ".key"
    other = SigningKey.open(tmp_path / "other.key")
    link = os.link

    def meanwhile(draft: Path, target: Path) -> None:
        assert not target.exists() and draft.read_bytes().endswith(b"-----\n")
        link(tmp_path / "other.key", target)
        link(draft, target)

    monkeypatch.setattr(os, "link", meanwhile)
    assert SigningKey.open(path).public == other.public
    assert [one.name for one in path.parent.iterdir()] == [".key"]


def test_the_key_is_read_while_models_load(tmp_path: Path) -> None:
    manager = ConsentManager(
        ConsentConfig(), "required", lambda: pytest.fail("not asked for"), key=tmp_path / ".key"
    )
    made = manager.key.public
    manager._key = None
    with manager._verifier_lock:
        assert manager.public_key == made


def test_keys_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.key").write_text("nothing", encoding="utf-8")
    (tmp_path / "folder.key").mkdir()
    for name in ("broken", "folder"):
        with pytest.raises(ConsentError, match=name):
            SigningKey.open(tmp_path / f"{name}.key")


def test_a_mixture_has_no_evidence(tiny_bundle: Path, voice: Voice, tmp_path: Path) -> None:
    """What somebody agreed to is about their own voice."""
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    signed = SigningKey.open(tmp_path / "server.key").sign(voice, EVIDENCE)
    mixed = synthesizer.mix_voices([(signed, 0.7), (synthesizer.voice("bob"), 0.3)], name="both")
    assert mixed.consent is None


# --- The command line ---


def test_a_statement_is_stored_shown_and_checked(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    path = tmp_path / "me.voice"
    base = (recording, "-o", path, "--bundle", tiny_bundle)
    result = run_verb(prepare_voice, *base)
    assert result.exit_code == 0 and "no statement of consent" in result.stderr
    shown = run_verb(inspect, path)
    assert shown.exit_code == 0 and "none is stored" in shown.stdout
    assert run_verb(inspect, path, "--key", "AAAA").exit_code == 1
    operator = tmp_path / "operator.yaml"
    operator.write_text("operator: Example Ltd\nstatement: All agreed.\n", encoding="utf-8")
    for words, told in (
        (("--who", "Ann", "--statement", "I agree."), ("Ann", "I agree.", "stated")),
        (("--consent", operator), ("Example Ltd: All agreed.", "stated")),
    ):
        assert run_verb(prepare_voice, *base, *words).exit_code == 0
        shown = run_verb(inspect, path)
        assert shown.exit_code == 0 and "signature  valid" in shown.stdout
        assert all(word in shown.stdout for word in told)
    public = shown.stdout.rpartition("key ")[2].split()[0]
    assert run_verb(inspect, path, "--key", public).exit_code == 0
    other = SigningKey.open(tmp_path / "other.key").public
    assert run_verb(inspect, path, "--key", other).exit_code == 1
    voice = Voice.load(path)
    assert voice.consent is not None
    replace(voice, consent={**voice.consent, "voice": "0" * 64}).save(path)
    shown = run_verb(inspect, path)
    assert shown.exit_code == 1 and "WRONG" in shown.stdout
    operator.write_text("operator: Example Ltd\n", encoding="utf-8")
    assert run_verb(prepare_voice, *base, "--consent", operator).exit_code != 0
    assert (
        "no statement" in run_verb(prepare_voice, *base, "--for-others", "--statement", "x").output
    )


def test_the_bundle_that_listens_is_an_option(
    tiny_bundle: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("-o", "me.voice", "--bundle", tiny_bundle, "--for-others")
    monkeypatch.setattr(Components, "has_token_recognizer", False)
    result = run_verb(prepare_voice, recording, *asked)
    assert result.exit_code and "--consent-bundle" in result.output
    result = run_verb(prepare_voice, recording, *asked, "--consent-bundle", "no-such-bundle")
    assert result.exit_code and "no-such-bundle" in result.output


def test_for_others_the_sentence_is_listened_to(
    tiny_bundle: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    from tokenlm import cli

    app = typer.Typer()
    app.command(cls=cli.VerbCommand)(cli.guarded(prepare_voice, cli.Settings()))
    path = tmp_path / "me.voice"
    words = [str(recording), "-o", str(path), "--bundle", str(tiny_bundle), "--for-others"]
    result = CliRunner().invoke(app, [*words, "--who", "Ann"], input=f"{recording}\n")
    assert result.exit_code and "not accepted" in result.output and not path.exists()
    assert "I, Ann, let tokenlm copy my voice. " in result.output
    accepted = Decision(accepted=True, reasons=(), scores=EVIDENCE.scores)
    monkeypatch.setattr(ConsentVerifier, "verify", lambda *_: accepted)
    result = CliRunner().invoke(app, words, input=f"Ann\n{recording}\n")
    assert result.exit_code == 0, result.output
    shown = run_verb(inspect, path)
    assert shown.exit_code == 0 and "spoken" in shown.stdout and "not measured" in shown.stdout
