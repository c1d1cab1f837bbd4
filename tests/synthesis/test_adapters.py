"""Adapters: read, spoken alone and in one batch, dropped, and merged into a bundle."""

from __future__ import annotations

import asyncio
import copy
import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inference.engine import EngineStream, StreamEngine
from tokenlm.checkpoint import read_manifest
from tokenlm.checkpoint.adapter import (
    AdapterBase,
    AdapterConfig,
    AdapterError,
    PartChange,
    bundle_fingerprint,
    read_adapter,
    save_adapter,
)
from tokenlm.checkpoint.component import read_state
from tokenlm.modules.low_rank import Additions, adapted, hook_layers
from tokenlm.modules.quantised import Precision, QuantisedLinear, num_model_bytes
from tokenlm.synthesis import Synthesizer, Voice, VoiceError, script
from tokenlm.synthesis.acceleration import accelerate
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.script import sound_key
from tokenlm.synthesis.session import Session, render_sessions
from training.personal.adapter import merge_adapter

TEXT = "is it so?"
LM_LAYERS = ("backbone.layers.0.self_attn.q_proj", "backbone.layers.0.mlp.down_proj", "head")
FLOW_LAYERS = ("estimator.blocks.0.attention.query_key_value", "estimator.blocks.0.feed_forward.0")


def additions(
    state: dict[str, Tensor], layers: tuple[str, ...], seed: int, rank: int
) -> PartChange:
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name in layers:
        out, size = state[f"{name}.weight"].shape
        pairs[f"{name}.weight"] = (
            torch.randn(rank, size, generator=generator),
            torch.randn(out, rank, generator=generator),
        )
    return PartChange({}, pairs)


def write_adapter(bundle: Path, folder: Path, seed: int, *, whole: tuple[str, ...] = ()) -> Path:
    """An adapter with random additions to LM and flow; components of `whole` have new values."""
    parts = {}
    for component, layers in (("speech_lm", LM_LAYERS), ("flow", FLOW_LAYERS)):
        state = read_state(bundle / component / "model.safetensors")
        parts[component] = additions(state, layers, seed, rank=1 + seed % 2)
    for component in whole:
        state = read_state(bundle / component / "model.safetensors")
        generator = torch.Generator().manual_seed(seed)
        moved = {
            name: value.float() + 0.1 * torch.randn(value.shape, generator=generator)
            for name, value in state.items()
        }
        parts[component] = PartChange(moved, {})
    manifest = read_manifest(bundle)
    base = AdapterBase(name=manifest.name, fingerprint=bundle_fingerprint(manifest))
    save_adapter(folder, AdapterConfig(name=folder.stem, base=base), parts)
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> list[Path]:
    """Additions alone, additions with a vocoder, and a whole LM."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        write_adapter(tiny_bundle, folder / "one.adapter", 1),
        write_adapter(tiny_bundle, folder / "two.adapter", 2, whole=("vocoder",)),
        write_adapter(tiny_bundle, folder / "three.adapter", 3, whole=("speech_lm",)),
    ]


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.fixture(scope="module")
def voices(synthesizer: Synthesizer, adapters: list[Path]) -> list[Voice]:
    """Ann without an adapter, and with each of them."""
    ann = synthesizer.voice("ann")
    return [ann, *(replace(ann, adapter=str(folder)) for folder in adapters)]


@pytest.fixture(scope="module")
def alone(synthesizer: Synthesizer, voices: list[Voice]) -> list[Tensor]:
    """What each voice says, before and after adapters were loaded."""
    return [synthesizer.generate(TEXT, voice=voice) for voice in voices]


def test_rows_have_their_own_additions() -> None:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    model = nn.Sequential(layer)
    hook_layers(model, ["0"])
    hook_layers(model, ["0"])  # asks once all the same
    one = Additions({"0": (torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]))})
    two = Additions({"0": (torch.eye(2), 10.0 * torch.eye(2))})
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0], [5.0, 6.0]])
    with adapted([one, None, two]):
        assert torch.equal(model(x), torch.tensor([[9.0, 12.0], [0.0, 0.0], [50.0, 60.0]]))
        # Guidance: two neighbouring rows for each stream; and positions.
        pairs = model(x.repeat_interleave(2, dim=0)[:, None])
    assert pairs.shape == (6, 1, 2)
    assert torch.equal(pairs[:, 0, 0], torch.tensor([9.0, 9.0, 0.0, 0.0, 50.0, 50.0]))
    assert not model(x).any()
    assert not copy.deepcopy(model)(x).any()


def test_additions_take_no_memory_of_their_own_and_are_freed() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    hook_layers(model, ["0"])
    made = [Additions({"0": (torch.ones(rank, 3), torch.ones(2, rank))}) for rank in (1, 2)]
    x = torch.ones(4, 3)
    with torch.inference_mode():
        before = model(x)
        with adapted([made[0], None, made[1], made[1]]):
            added = model(x) - before
            doubled = model(x.repeat_interleave(2, dim=0)) - before[:1]
    assert added[:, 0].tolist() == pytest.approx([3.0, 0.0, 6.0, 6.0])
    assert doubled[:, 1].tolist() == pytest.approx([3.0, 3.0, 0.0, 0.0, 6.0, 6.0, 6.0, 6.0])
    # A voice is fitted by gradient with what was computed in inference mode before.
    x.requires_grad_()
    with adapted([made[0], None, made[1], made[1]]):
        model(x).sum().backward()
    assert x.grad is not None and (x.grad[0] - x.grad[1]).tolist() == pytest.approx([2.0] * 3)
    alive = [weakref.ref(tensor) for one in made for pair in one.pairs.values() for tensor in pair]
    assert all(tensor() is not None for tensor in alive)
    del made
    gc.collect()
    assert all(tensor() is None for tensor in alive)


def test_each_adapter_speaks_otherwise_and_the_bundle_as_before(
    synthesizer: Synthesizer, tiny_bundle: Path, voices: list[Voice], alone: list[Tensor]
) -> None:
    fresh = Synthesizer.from_pretrained(tiny_bundle)
    before = fresh.generate(TEXT, voice="ann")
    assert torch.equal(alone[0], before)
    assert torch.equal(synthesizer.generate(TEXT, voice="ann"), before)  # with hooks, too
    for one in range(4):
        for other in range(one):
            same = alone[one].shape == alone[other].shape
            assert not same or not torch.allclose(alone[one], alone[other], atol=1e-3)
    streamed = torch.cat(list(synthesizer.stream(TEXT, voice=voices[2])))
    torch.testing.assert_close(streamed, alone[2], atol=1e-4, rtol=0)


def test_adapters_of_several_people_in_one_batch(
    synthesizer: Synthesizer, voices: list[Voice], alone: list[Tensor]
) -> None:
    from tokenlm.models.lm.decoding import KeyValueCache, by_model, decode_step

    cache = KeyValueCache(synthesizer.components.speech_lm)
    sessions: list[Session] = [
        synthesizer.open_session(TEXT, voice=voice, cache=cache) for voice in voices
    ]
    chunks: list[list[Tensor]] = [[] for _ in sessions]
    num_together = 0
    while not all(session.is_done for session in sessions):
        stepping = [session for session in sessions if session.can_step()]
        groups = by_model([s.decoding for s in stepping if s.decoding is not None])  # type: ignore[misc]
        num_together = max(num_together, *(len(group) for group in groups.values()), 0)
        for model, group in groups.items():
            decode_step(model, group)
        for session in stepping:
            session.collect()
        ready = [i for i, s in enumerate(sessions) if s.can_render]
        if len(ready) == len([s for s in sessions if not s.is_done]):
            for i, chunk in zip(ready, render_sessions([sessions[i] for i in ready]), strict=True):
                chunks[i].append(chunk)
    assert num_together == 3  # the bundle, and two adapters of additions
    for pieces, whole in zip(chunks, alone, strict=True):
        torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-4, rtol=0)


def test_an_engine_speaks_adapters_at_the_same_time(
    synthesizer: Synthesizer, voices: list[Voice], alone: list[Tensor]
) -> None:
    async def main() -> list[Tensor]:
        engine = StreamEngine(synthesizer, max_streams=len(voices))
        try:
            streams = [await engine.open(TEXT, voice=voice) for voice in voices]
            first = await anext(streams[2])
            synthesizer.drop_adapter(voices[2].adapter)  # who speaks goes on
            rest = await asyncio.gather(*map(listen, streams))
            rest[2] = torch.cat([first, rest[2]])
            return list(rest)
        finally:
            await engine.close(0)

    async def listen(stream: EngineStream) -> Tensor:
        return torch.cat([torch.zeros(0), *[chunk async for chunk in stream]])

    for said, whole in zip(asyncio.run(main()), alone, strict=True):
        torch.testing.assert_close(said, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_adapters_of_a_quantised_bundle(
    tiny_bundle: Path, adapters: list[Path], weights: Precision
) -> None:
    """Additions stay additions, and models of an adapter's own are quantised as well."""
    components = accelerate(Components(tiny_bundle), weights=weights, caches="float16")
    base = components.base_models
    one, three = (components.models(str(folder)) for folder in (adapters[0], adapters[2]))
    assert one.speech_lm is base.speech_lm and one.flow is base.flow
    assert one.num_bytes == sum(rows.num_bytes for rows in one.additions.values())
    layer = base.speech_lm.get_submodule(LM_LAYERS[0])
    assert isinstance(layer, QuantisedLinear)
    x = torch.ones(2, layer.in_features)
    down, up = one.additions["speech_lm"].pairs[LM_LAYERS[0]]
    with adapted([None, one.additions["speech_lm"]]):
        plain, changed = layer(x)
    assert torch.equal(plain, layer(x)[0])
    torch.testing.assert_close(changed - plain, up @ (down @ x[0]), atol=1e-3, rtol=1e-3)
    own = three.speech_lm
    assert own is not base.speech_lm
    assert type(own.get_submodule(LM_LAYERS[0])) is type(layer)
    assert three.num_bytes < 1.1 * num_model_bytes(base.speech_lm) + sum(
        rows.num_bytes for rows in three.additions.values()
    )
    attention = FLOW_LAYERS[0].rpartition(".")[0]
    whole = write_adapter(
        tiny_bundle, adapters[0].parent / f"{weights}.adapter", 4, whole=("flow",)
    )
    assert components.models(str(whole)).flow.get_submodule(attention).cache_dtype == torch.float16


def test_an_adapter_is_merged_into_a_bundle(
    tiny_bundle: Path, adapters: list[Path], alone: list[Tensor], tmp_path: Path
) -> None:
    merge_adapter(tiny_bundle, adapters[1], tmp_path / "merged")
    merged = Synthesizer.from_pretrained(tmp_path / "merged")
    said = merged.generate(TEXT, voice="ann")
    torch.testing.assert_close(said, alone[2], atol=0.02, rtol=0)  # weights of 16 bits
    with pytest.raises(AdapterError, match=r"tiny \([0-9a-f]{16}\).*merged \([0-9a-f]{16}\)"):
        merged.load_adapter(adapters[0])


def test_a_voice_file_names_the_adapter_beside_it(
    synthesizer: Synthesizer, adapters: list[Path], voices: list[Voice], alone: list[Tensor],
    tmp_path: Path,
) -> None:  # fmt: skip
    shutil.copytree(adapters[0], tmp_path / "one.adapter")
    with pytest.raises(VoiceError, match="does not lie beside this file"):
        voices[1].save(tmp_path / "ann.voice")
    with pytest.raises(VoiceError, match="does not lie beside this file"):
        replace(voices[1], adapter=str(tmp_path / "no.adapter")).save(tmp_path / "ann.voice")
    assert not (tmp_path / "ann.voice").exists()
    replace(voices[1], adapter=str(tmp_path / "one.adapter")).save(tmp_path / "ann.voice")
    assert torch.equal(synthesizer.generate(TEXT, voice=str(tmp_path / "ann.voice")), alone[1])
    shutil.rmtree(tmp_path / "one.adapter")
    with pytest.raises(AdapterError, match="no such adapter folder"):
        synthesizer.generate(TEXT, voice=str(tmp_path / "ann.voice"))
    with pytest.raises(VoiceError, match="cannot be mixed"):
        synthesizer.mix_voices([(voices[1], 1.0), (synthesizer.voice("bob"), 1.0)])
    for pair in ([voices[0], voices[1]], [voices[2], voices[1]]):  # the same prompt
        with pytest.raises(VoiceError, match="cannot be mixed"):
            synthesizer.mix_voices([(voice, 1.0) for voice in pair])


def test_adapters_have_names_and_a_memory_limit(
    tiny_bundle: Path, adapters: list[Path], alone: list[Tensor], tmp_path: Path
) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    store = synthesizer.adapters
    assert synthesizer.load_adapter(adapters[0]) == "one"
    assert synthesizer.load_adapter(adapters[1], "other") == "other"
    assert store.names == ["one", "other"] and store.num_bytes > 1000
    ann = synthesizer.voice("ann")
    assert torch.equal(synthesizer.generate(TEXT, voice=replace(ann, adapter="other")), alone[2])
    both, store.max_bytes = store.num_bytes, 1
    synthesizer.generate(TEXT, voice=replace(ann, adapter="one"))
    store.models(str(adapters[2]))
    assert 0 < store.num_bytes != both and len(store._loaded) == 1
    assert synthesizer.load_adapter(adapters[0], "evicted") == "evicted"
    store.models(str(adapters[2]))
    synthesizer.drop_adapter("evicted")
    assert store.names == ["one", "other"]
    # Evicted, it is read again; dropped, its name is gone.
    assert torch.equal(synthesizer.generate(TEXT, voice=replace(ann, adapter="one")), alone[1])
    synthesizer.drop_adapter("one")
    with pytest.raises(AdapterError, match="no adapter 'one' is loaded; there is: other"):
        synthesizer.drop_adapter("one")
    # Another one in the place of the first is another voice.
    shutil.copytree(adapters[0], tmp_path / "me.adapter")
    mine = replace(ann, adapter=str(tmp_path / "me.adapter"))
    assert torch.equal(synthesizer.generate(TEXT, voice=mine), alone[1])
    shutil.rmtree(tmp_path / "me.adapter")
    shutil.copytree(adapters[1], tmp_path / "me.adapter")
    assert torch.equal(synthesizer.generate(TEXT, voice=mine), alone[2])


def test_a_session_keeps_the_adapter_that_it_began_with(
    tiny_bundle: Path, adapters: list[Path], tmp_path: Path
) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    folder = tmp_path / "me.adapter"
    shutil.copytree(adapters[0], folder)
    synthesizer.load_adapter(folder, "me")
    ann = replace(synthesizer.voice("ann"), adapter="me")
    whole = synthesizer.open_session(TEXT, voice=ann).generate()
    synthesizer.prompts.clear()
    replaced, dropped = (synthesizer.open_session(TEXT, voice=ann) for _ in range(2))
    shutil.rmtree(folder)
    shutil.copytree(adapters[2], folder)
    assert torch.equal(replaced.generate(), whole)
    synthesizer.prompts.clear()
    synthesizer.drop_adapter("me")
    chunks = []
    while (chunk := dropped.next_chunk()) is not None:
        chunks.append(chunk)
    torch.testing.assert_close(torch.cat(chunks), whole, atol=1e-4, rtol=0)


def test_kept_sound_depends_on_the_adapter(
    synthesizer: Synthesizer, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, one, two, _ = voices
    said = {"ann": ann, "one": one, "two": two}

    def key(text: str, voice: Voice) -> str:
        session = synthesizer.new_session(voice=voice, find_voice=said.__getitem__)
        session.text.read(text, warns=False)
        return sound_key(synthesizer, session, text)

    assert len({key(TEXT, voice) for voice in (ann, one, two)}) == 3
    marked = '<voice name="me">is it so?</voice>'
    keys = []
    for voice in (ann, one, two):
        said["me"] = voice
        keys.append(key(marked, ann))
    assert len(set(keys)) == 3
    # Nothing is added for a voice without an adapter: what was kept before is still known.
    plain = key(TEXT, ann)
    monkeypatch.setattr(script, "_spoken_by", lambda voice, models: voice.digest)
    assert key(TEXT, ann) == plain and key(TEXT, one) == plain


def test_what_does_not_fit_is_an_error(
    tiny_bundle: Path, synthesizer: Synthesizer, tmp_path: Path
) -> None:
    manifest = read_manifest(tiny_bundle)
    base = AdapterBase(name="tiny", fingerprint=bundle_fingerprint(manifest))
    config = AdapterConfig(name="bad", base=base)
    cases = {
        "a": ({"flow": PartChange({"nothing": torch.ones(1)}, {})}, "unexpected: nothing"),
        "b": (
            {"vocoder": PartChange({}, {"head.weight": (torch.ones(1, 3), torch.ones(2, 1))})},
            "does not fit",
        ),
    }
    for name, (parts, message) in cases.items():
        save_adapter(tmp_path / f"{name}.adapter", config, parts)
        with pytest.raises(AdapterError, match=message):
            synthesizer.load_adapter(tmp_path / f"{name}.adapter")
    other = AdapterConfig(name="bad", base=AdapterBase(name="elsewhere", fingerprint="0" * 16))
    save_adapter(tmp_path / "c.adapter", other, cases["a"][0])
    with pytest.raises(AdapterError, match=r"elsewhere \(0{16}\) and does not fit tiny \("):
        synthesizer.load_adapter(tmp_path / "c.adapter")
    weights = tmp_path / "c.adapter" / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AdapterError, match="is it whole"):
        read_adapter(tmp_path / "c.adapter")
    with pytest.raises(AdapterError, match=r"ends in \.adapter"):
        save_adapter(tmp_path / "d", config, cases["a"][0])
    with pytest.raises(AdapterError, match="would change nothing"):
        save_adapter(tmp_path / "d.adapter", config, {})
    with pytest.raises(AdapterError, match="cannot store"):
        save_adapter(
            tmp_path / "d.adapter", config, {"flow": PartChange({"x": torch.tensor([1e6])}, {})}
        )
    (tmp_path / "e.adapter").mkdir()
    (tmp_path / "e.adapter" / "letter.txt").write_text("mine")
    with pytest.raises(AdapterError, match="more than an adapter"):
        save_adapter(tmp_path / "e.adapter", config, cases["a"][0])
    assert (tmp_path / "e.adapter" / "letter.txt").read_text() == "mine"
    save_adapter(tmp_path / "f.adapter", config, cases["b"][0])
    damaged = torch.tensor(1.0), torch.ones(0, 3), torch.tensor([1.0, float("nan")])
    for tensor in damaged:
        for key in ("vocoder/head.weight.down", "vocoder/head.weight"):
            tensors = {key: tensor, "vocoder/head.weight.up": torch.ones(2, 1)}
            save_file(tensors, tmp_path / "f.adapter" / "adapter.safetensors")
            with pytest.raises(AdapterError, match=f"{key} is damaged"):
                read_adapter(tmp_path / "f.adapter")
    shutil.copytree(tmp_path / "a.adapter", tmp_path / "x")
    voice = replace(synthesizer.voice("ann"), adapter=str(tmp_path / "x"))
    voice.save(tmp_path / "v.voice")
    data = (tmp_path / "v.voice").read_bytes()
    (tmp_path / "v.voice").write_bytes(
        data.replace(b'\\"adapter\\": \\"x\\"', b'\\"adapter\\": \\"/\\"')
    )
    with pytest.raises(VoiceError, match="not the name of a folder"):
        Voice.load(tmp_path / "v.voice")
