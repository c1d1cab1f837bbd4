"""The vocoders of CosyVoice 2 and 3 against the reference numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio import MelConfig
from tokenlm.checkpoint.cosyvoice.hift import hift_config, hift_to_ours
from tokenlm.models.vocoder.hift import (
    OVERLAP_FRAMES,
    CrossFadeState,
    HiFT,
    cross_fade,
    cross_fade_step,
    fade_window,
    init_cross_fade,
)


class Case:
    """A vocoder with its numbers."""

    def __init__(self, version: int, golden: Any) -> None:
        self.golden = golden
        sizes = golden.sizes
        shapes = {key: tuple(tensor.shape) for key, tensor in golden.weights.items()}
        hop = sizes["istft_hop"] * math.prod(sizes["upsample_rates"])
        mel = MelConfig(
            sample_rate=sizes["sampling_rate"],
            n_fft=4 * hop,
            win_length=4 * hop,
            hop_length=hop,
            num_mels=sizes["mel"],
            fmax=None,
        )
        config = replace(
            hift_config(version, shapes),  # type: ignore[arg-type]
            mel=mel,
            is_causal=sizes["causal"],
            upsample_rates=tuple(sizes["upsample_rates"]),
            upsample_kernels=tuple(sizes["upsample_kernels"]),
            n_fft=sizes["istft_n_fft"],
            hop_length=sizes["istft_hop"],
            block_kernels=tuple(sizes["resblock_kernels"]),
            source_kernels=tuple(sizes["source_resblock_kernels"]),
            dilations=tuple(sizes["dilations"]),
            sine_level=sizes["sine_amp"],
            noise_level=sizes["noise_std"],
            voiced_hz=sizes["voiced_threshold"],
            slope=sizes["lrelu_slope"],
            limit=sizes["audio_limit"],
        )
        assert config.is_causal == (version == 3)
        assert config.num_harmonics == sizes["nb_harmonics"] + 1
        assert (config.dim, config.pitch_dim) == (sizes["base_channels"], sizes["f0_channels"])
        self.vocoder = HiFT(config)
        self.vocoder.load_state_dict(hift_to_ours(config, golden.weights))
        self.vocoder.eval().requires_grad_(False)
        self.noise: Tensor | None = None
        self.vocoder.source.source_noise = self.source_noise  # type: ignore[method-assign]

    def source_noise(self, start: int, count: int) -> Tensor:
        if self.noise is None:
            return torch.zeros(count, self.vocoder.config.num_harmonics)
        return self.noise[0, start : start + count]

    def sines(self) -> tuple[Tensor, Tensor, Tensor]:
        source = self.vocoder.source
        sines, voiced = source.sines(self.golden["in.f0"], source.init_state(1), flush=True)
        return sines, voiced, source(self.golden["in.f0"], source.init_state(1), flush=True)


@pytest.fixture
def second(golden: Callable[[str], Any]) -> Case:
    return Case(2, golden("hift"))


@pytest.fixture
def third(golden: Callable[[str], Any]) -> Case:
    return Case(3, golden("cv3_hift"))


def excite(vocoder: HiFT, mel: Tensor) -> Tensor:
    return vocoder.excite(mel, vocoder.init_exact(mel.shape[0]), flush=True)


def pitch(vocoder: HiFT, mel: Tensor, flush: bool = True) -> Tensor:
    return vocoder.pitch(mel, vocoder.pitch.init_state(mel.shape[0]), flush=flush)


def test_golden_pitch(second: Case) -> None:
    numbers = second.golden
    numbers.check(pitch(second.vocoder, numbers["in.f0_mel_batch"]), "out.f0_batch")
    numbers.check(pitch(second.vocoder, numbers["in.mel"]), "out.f0_from_mel")


def test_golden_source(second: Case) -> None:
    numbers = second.golden
    second.noise = numbers["in.noise"]
    sines, voiced, excitation = second.sines()
    numbers.check(sines, "out.source.sine")
    numbers.check(voiced[..., None].float(), "out.source.uv")
    numbers.check(excitation[:, None], "out.source.s")
    second.noise = None
    numbers.check(second.sines()[2][:, None], "out.source0.s")


def test_golden_decode(second: Case) -> None:
    numbers, vocoder = second.golden, second.vocoder
    seen: dict[str, Tensor] = {}
    stage = vocoder.stages[0]
    parts = {
        "source_stft": vocoder.spectrum,
        "conv_pre": vocoder.embed,
        "up0": stage.upsample,
        "source_down0": stage.source,
        "source_res0": stage.source_block,
        "res0": stage.blocks[0],
        "conv_post": vocoder.post,
    }
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, key=key: seen.__setitem__(key, out))
        for key, part in parts.items()
    ]
    waveform = vocoder.decode(numbers["in.mel"].mT, numbers["in.source"][:, 0])
    for hook in hooks:
        hook.remove()
    for key, value in seen.items():
        numbers.check(value, f"out.decode.{key}")
    assert len(seen) == len(parts)
    numbers.check(waveform, "out.decode.wav")


def test_golden_whole_path(second: Case) -> None:
    numbers, vocoder = second.golden, second.vocoder
    second.noise = numbers["in.noise"]
    mel = numbers["in.mel"].mT
    numbers.check(excite(vocoder, mel)[:, None], "out.inference.s")
    numbers.check(vocoder(mel), "out.inference.wav")


def test_golden_cached_source(second: Case) -> None:
    numbers, vocoder = second.golden, second.vocoder
    second.noise = numbers["in.noise"]
    mel = numbers["in.mel"].mT
    cached = numbers["in.cache_source"][:, 0]
    excitation = torch.cat([cached, excite(vocoder, mel)[:, cached.shape[1] :]], dim=1)
    numbers.check(excitation[:, None], "out.inference_cached.s")
    numbers.check(vocoder.decode(mel, excitation), "out.inference_cached.wav")


def test_golden_cross_fade(second: Case) -> None:
    numbers = second.golden
    size = numbers["in.fade.old_tail"].shape[1]
    numbers.check(fade_window(size), "out.fade.window")
    faded = cross_fade(numbers["in.fade.new"], numbers["in.fade.old_tail"])
    numbers.check(faded, "out.fade.out")


def test_golden_reference_stream(second: Case) -> None:
    numbers, vocoder = second.golden, second.vocoder
    mel = numbers["in.stream.mel"].mT
    bounds = [0, *numbers.sizes["stream_bounds"]]
    state: CrossFadeState = init_cross_fade(vocoder, 1)
    for step, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        is_last = end == bounds[-1]
        waveform = cross_fade_step(vocoder, mel[:, start:end], state, is_last=is_last)
        numbers.check(waveform, f"out.stream.wav{step}")


@pytest.mark.parametrize("pieces", [[1] * 44, [18, 16, 10], [5, 30, 9]])
def test_golden_exact_stream(second: Case, pieces: list[int]) -> None:
    """However the frames come; what the pieces leave comes last."""
    numbers, vocoder = second.golden, second.vocoder
    mel = numbers["in.stream.mel"].mT
    state, parts, fed, given = vocoder.init_state(1), [], 0, 0
    for count in pieces:
        parts.append(vocoder(mel[:, fed : fed + count], state))
        fed = min(fed + count, mel.shape[1])
        given += parts[-1].shape[1]
        assert given >= fed * vocoder.config.mel.hop_length - vocoder.config.lookahead_samples
    if fed < mel.shape[1]:
        parts.append(vocoder(mel[:, fed:], state))
    parts.append(vocoder.flush(state))
    numbers.check(torch.cat(parts, dim=1), "out.stream.offline")


def test_golden_causal_pitch(third: Case) -> None:
    numbers, vocoder = third.golden, third.vocoder
    numbers.check(pitch(vocoder, numbers["in.mel"]), "out.f0")
    numbers.check(pitch(vocoder, numbers["in.mel"], flush=False), "out.f0_partial")


def test_golden_causal_source(third: Case) -> None:
    numbers = third.golden
    third.noise = numbers["in.sine_noise"]
    _, voiced, excitation = third.sines()
    numbers.check(voiced[..., None].float(), "out.source.uv")
    numbers.check(excitation[:, None], "out.source.s")


def test_golden_causal_decode(third: Case) -> None:
    numbers, vocoder = third.golden, third.vocoder
    mel, source = numbers["in.mel"].mT, numbers["in.source"][:, 0]
    numbers.check(vocoder.decode(mel, source), "out.decode.wav")
    expected = numbers["out.decode_partial.wav"]
    state = vocoder.init_exact(1)
    ahead = vocoder.pitch.lookahead
    known = source[:, : -ahead * vocoder.config.mel.hop_length]
    partial = vocoder.decode(mel[:, :-ahead], known, state, flush=False)
    assert partial.shape[1] >= expected.shape[1]
    numbers.check(partial[:, : expected.shape[1]], "out.decode_partial.wav")


def test_golden_causal_whole_path(third: Case) -> None:
    numbers, vocoder = third.golden, third.vocoder
    third.noise = numbers["in.sine_noise"]
    mel = numbers["in.mel"].mT
    numbers.check(excite(vocoder, mel)[:, None], "out.inference.s")
    numbers.check(vocoder(mel), "out.inference.wav")
    state = vocoder.init_state(1)
    excitation = vocoder.excite(mel, vocoder.init_exact(1), flush=False)
    numbers.check(excitation[:, None], "out.inference_partial.s")
    partial = vocoder(mel, state)
    expected = numbers["out.inference_partial.wav"]
    assert partial.shape[1] >= expected.shape[1]
    numbers.check(partial[:, : expected.shape[1]], "out.inference_partial.wav")
    rest = vocoder.flush(state)
    numbers.check(torch.cat([partial, rest], dim=1), "out.inference.wav")
    assert rest.shape[1] <= vocoder.config.lookahead_samples


def test_golden_reference_mode_of_the_stream(golden: Callable[[str], Any]) -> None:
    """The methods of every vocoder cross-fade where the config says so."""
    case = Case(2, golden("hift"))
    vocoder = HiFT(replace(case.vocoder.config, streaming="reference"))
    vocoder.load_state_dict(case.vocoder.state_dict())
    vocoder.requires_grad_(False).source.source_noise = case.source_noise  # type: ignore[method-assign]
    mel = case.golden["in.stream.mel"].mT
    bounds = [0, *case.golden.sizes["stream_bounds"]]
    *before, last = zip(bounds, bounds[1:], strict=False)
    state = vocoder.init_state(1)
    for step, (start, end) in enumerate(before):
        case.golden.check(vocoder(mel[:, start:end], state), f"out.stream.wav{step}")
    rest = torch.cat([vocoder(mel[:, last[0] :], state), vocoder.flush(state)], dim=1)
    frames = last[1] - last[0] + OVERLAP_FRAMES
    assert rest.shape[1] == frames * vocoder.config.mel.hop_length
