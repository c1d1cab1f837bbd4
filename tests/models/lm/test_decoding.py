"""Rows of the cache and sequences that are decoded together."""

from __future__ import annotations

import pytest
import torch

from tokenlm.models.lm import BackboneConfig, SamplingConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm import decoding as decoding_module
from tokenlm.models.lm.decoding import (
    BLOCK_POSITIONS,
    PREFILL_POSITIONS,
    Decoding,
    KeyValueCache,
    decode_step,
    prefill,
)
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.layout import InputSequence, interleaved
from tokenlm.models.lm.model import LayoutBatch

SAMPLING = SamplingConfig(top_k=0, top_p=1.0)
CONFIG = SpeechLMConfig(
    backbone=BackboneConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
    ),
    codebook_size=20,
)


@pytest.fixture(scope="module")
def model() -> SpeechLM:
    torch.manual_seed(0)
    model = SpeechLM(CONFIG).eval().requires_grad_(False)
    for embedding in (model.speech_embedding, model.special_embedding):
        torch.nn.init.normal_(embedding.weight)
    return model


def sequence(model: SpeechLM, layout: str = "one_shot", **prompt: list[int]) -> InputSequence:
    return InputSequence(layout, block_text=2, block_speech=3, **prompt)  # type: ignore[arg-type]


def started(model: SpeechLM, cache: KeyValueCache, text: list[int], **options: object) -> Decoding:
    own = sequence(model)
    own.add_text(text)
    own.end_text()
    return Decoding(model, cache, own, sampling=SAMPLING, seed=1, **options)  # type: ignore[arg-type]


def test_logits_of_growing_interleaved_text_are_those_of_training(model: SpeechLM) -> None:
    text, speech = [1, 2, 3, 4, 5], list(range(9))
    layout = interleaved(text, speech, 20, block_text=2, block_speech=3)
    expected = model(LayoutBatch.from_layouts([layout]))[0]
    places = [at for at, target in enumerate(layout.targets) if target in range(20)]
    own = sequence(model, "interleaved")
    decoding = Decoding(model, KeyValueCache(model), own, sampling=SAMPLING, seed=1, forced=speech)
    coming, found = list(text), []
    while not decoding.is_done:
        if decoding.can_step:
            decode_step(model, [decoding])
            found.append(decoding.logits)
        elif coming:
            own.add_text([coming.pop(0)])
        else:
            own.end_text()
    assert decoding.tokens == speech
    logits = torch.stack([row for row in found if row is not None])
    torch.testing.assert_close(logits, expected[places], atol=1e-4, rtol=0)


def test_sequences_join_and_leave(model: SpeechLM) -> None:
    texts = [[1, 2, 3], [4] * 20, [7, 8], [9]]

    def logits(rounds: list[list[int]], together: bool) -> dict[int, list[torch.Tensor]]:
        cache = KeyValueCache(model)
        live: dict[int, Decoding] = {}
        found: dict[int, list[torch.Tensor]] = {}
        for names in rounds:
            for name in set(live) - set(names):
                if all(name not in later for later in rounds[rounds.index(names) :]):
                    live.pop(name).close()
            for name in names:
                if name not in live:
                    own = cache if together else KeyValueCache(model)
                    live[name] = started(model, own, texts[name], forced=[3] * 50)
            groups = [names] if together else [[name] for name in names]
            for group in groups:
                decode_step(model, [live[name] for name in group])
            for name in names:
                row = live[name].logits
                assert row is not None
                found.setdefault(name, []).append(row)
        return found

    rounds = [[0], [0, 1], [1, 0, 2], [2], [2, 0], [0, 2, 3], [3, 0], [3, 1, 0]]
    alone, joined = logits(rounds, False), logits(rounds, True)
    for name, rows in alone.items():
        torch.testing.assert_close(torch.stack(joined[name]), torch.stack(rows), atol=1e-4, rtol=0)


def test_memory_is_that_of_the_rows(model: SpeechLM) -> None:
    cache = KeyValueCache(model)
    assert cache.num_bytes == 0
    first, second = started(model, cache, [1, 2]), started(model, cache, [3])
    decode_step(model, [first, second])
    # 2 layers of keys and values, 1 head of 8 channels in 4 bytes.
    row = 2 * 2 * BLOCK_POSITIONS * 8 * 4
    assert cache.num_bytes == 2 * row
    first.close()
    assert cache.num_bytes == row and second.row.index == 0
    decode_step(model, [second])
    second.close()
    second.close()
    assert cache.num_bytes == 0 and cache.rows == []


def test_long_sequences_outgrow_their_block(model: SpeechLM) -> None:
    cache = KeyValueCache(model)
    count = BLOCK_POSITIONS + 10
    decoding = started(model, cache, [1], forced=[2] * count)
    while decoding.can_step:
        decode_step(model, [decoding])
    assert decoding.is_done and len(decoding.tokens) == count
    assert cache.keys[0].shape[2] == 2 * BLOCK_POSITIONS


def test_a_prefix_starts_many_sequences(model: SpeechLM) -> None:
    for layout in ("one_shot", "interleaved"):
        own = sequence(model, layout, prompt_text=[1, 2, 3, 4, 5], prompt_tokens=[6] * 13)
        prefix = prefill(model, own)
        found = []
        for start, values in ((own.copy(), None), (prefix.sequence.copy(), prefix.key_values)):
            start.add_text([7, 8, 9])
            start.end_text()
            decoding = Decoding(
                model, KeyValueCache(model), start, sampling=SAMPLING, seed=1, key_values=values
            )
            decode_step(model, [decoding])
            assert decoding.logits is not None
            found.append(decoding.logits)
        torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_nothing_is_forced_out_of_an_empty_list(model: SpeechLM) -> None:
    assert started(model, KeyValueCache(model), [1], forced=[]).is_done


GUIDED = GuardConfig(guidance_scale=0.5)


@pytest.mark.parametrize("guards", [None, GUIDED])
def test_a_neighbour_waits_for_few_positions(
    model: SpeechLM, guards: GuardConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a long text is read, others go on with every step; and it says what it says alone."""
    text = [number % 32 for number in range(700)]
    alone = started(model, KeyValueCache(model), text, forced=[3] * 5, guards=guards)
    expected = logits_of(model, alone)
    read: list[int] = []
    original = decoding_module._read

    def counted(
        model: SpeechLM, rows: list, kinds: list, ids: list, additions: list
    ) -> torch.Tensor:
        if len(ids[0]) > 1:
            read.append(len(ids[0]))
        return original(model, rows, kinds, ids, additions)

    cache = KeyValueCache(model)
    neighbour = started(model, cache, [1], forced=[2] * 60)
    decode_step(model, [neighbour])
    late = started(model, cache, text, forced=[3] * 5, guards=guards)
    monkeypatch.setattr(decoding_module, "_read", counted)
    steps, found = 0, []
    while not late.is_done:
        read.clear()
        count = len(late.tokens)
        decode_step(model, [late, neighbour], max_positions=PREFILL_POSITIONS)
        steps += 1
        assert len(neighbour.tokens) == 1 + steps
        assert sum(read) < 2 * PREFILL_POSITIONS
        if len(late.tokens) > count:
            assert late.logits is not None
            found.append(late.logits)
    assert 11 + 5 <= steps + 1 <= 12 + 5
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-4, rtol=0)


def logits_of(model: SpeechLM, decoding: Decoding) -> list[torch.Tensor]:
    """Logits of every token of a sequence that is decoded alone."""
    found = []
    while decoding.can_step:
        decode_step(model, [decoding])
        assert decoding.logits is not None
        found.append(decoding.logits)
    return found


def test_what_is_read_in_pieces_is_what_is_read_at_once(
    model: SpeechLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = [number % 32 for number in range(300)]
    found = []
    for size in (PREFILL_POSITIONS, 1000):
        monkeypatch.setattr(decoding_module, "PREFILL_POSITIONS", size)
        decoding = started(model, KeyValueCache(model), text, forced=[3] * 3)
        found.append(torch.stack(logits_of(model, decoding)))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("guards", [None, GUIDED])
@pytest.mark.parametrize("place", ["_read", "sample", "guide", "head", "accept"])
def test_a_step_that_failed_can_be_tried_again(
    model: SpeechLM, guards: GuardConfig | None, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fails, and however often: afterwards everybody says what they say anyway."""
    texts = [[1, 2, 3], [4] * 150, [7, 8]]

    def begin() -> list[Decoding]:
        cache = KeyValueCache(model)
        return [started(model, cache, text, guards=guards) for text in texts]

    expected = begin()
    for _ in range(20):
        decode_step(model, [item for item in expected if item.can_step])
    calls = 0

    def failing(original: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls % 5 == 0:
                raise MemoryError("no room")
            result = original(*arguments, **options)  # type: ignore[operator]
            if calls % 7 == 0 and place != "accept":
                raise MemoryError("no room after all")
            return result

        return call

    owner: object = decoding_module
    if place in ("head", "accept"):
        owner, place = (model.head, "forward") if place == "head" else (Decoding, place)
    monkeypatch.setattr(owner, place, failing(getattr(owner, place)))
    again = begin()
    failures = 0
    for _ in range(400):
        counts = [len(item.tokens) for item in again]
        lacking = [
            item
            for item, count, other in zip(again, counts, expected, strict=True)
            if item.can_step and count < len(other.tokens)
        ]
        if not lacking:
            break
        try:
            decode_step(model, lacking)
        except MemoryError:
            failures += 1
    if guards is not None or place != "guide":
        assert failures > 2
    for item, other in zip(again, expected, strict=True):
        assert item.tokens == other.tokens and len(item.tokens) > 1


@pytest.mark.parametrize("place", ["add", "remove", "reserve", "guided"])
def test_a_cache_without_memory_stays_as_it_was(
    model: SpeechLM, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KeyValueCache(model)
    first, second = started(model, cache, [1, 2]), started(model, cache, [3])
    decode_step(model, [first, second])
    kept, calls = [part.clone() for part in (*cache.keys, *cache.values)], 0

    def failing(original: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > (7 if place == "guided" else 3):
                raise MemoryError("no room")
            return original(*arguments, **options)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", failing(torch.cat))
        patch.setattr(torch.nn.functional, "pad", failing(torch.nn.functional.pad))
        with pytest.raises(MemoryError):
            if place == "add":
                cache.add()
            elif place == "remove":
                first.close()
            elif place == "reserve":
                cache.reserve(1000)
            else:
                patch.undo()
                patch.setattr(
                    decoding_module,
                    "UnconditionalBranch",
                    failing(decoding_module.UnconditionalBranch),
                )
                calls = 7
                started(model, cache, [1], guards=GUIDED)
    assert [row.index for row in cache.rows] == [0, 1]
    for part, before in zip((*cache.keys, *cache.values), kept, strict=True):
        assert torch.equal(part, before)
    first.close()
    second.close()
    assert cache.rows == []
