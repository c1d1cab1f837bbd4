"""Layouts, losses, gradients and decoding of the LMs of CosyVoice 2 and 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.checkpoint.cosyvoice.lm import (
    class_order,
    lm_config,
    lm_to_ours,
    lm_to_theirs,
)
from tokenlm.models.lm import SamplingConfig, SpeechLM
from tokenlm.models.lm import decoding as decoding_module
from tokenlm.models.lm.decoding import (
    Decoding,
    KeyValueCache,
    SpeechRequest,
    decode_step,
    generate_speech,
)
from tokenlm.models.lm.layout import (
    IGNORE,
    SPECIAL,
    SPEECH,
    TEXT,
    InputSequence,
    Layout,
    fits_interleaved,
    interleaved,
    one_shot,
)
from tokenlm.models.lm.model import LayoutBatch
from training.losses.tokens import token_cross_entropy

FILES = {2: "lm", 3: "cv3_lm"}


class Case:
    """A model of one version with its numbers."""

    def __init__(self, version: int, golden: Any) -> None:
        self.version = version
        self.golden = golden
        sizes = golden.sizes
        shapes = {key: tuple(tensor.shape) for key, tensor in golden.weights.items()}
        self.config = lm_config(
            version,  # type: ignore[arg-type]
            shapes,
            head_dim=sizes["hidden"] // sizes["heads"],
            rope_theta=sizes["rope_theta"],
            rms_norm_eps=sizes["rms_eps"],
        )
        order = class_order(version, self.config.codebook_size, self.config.num_classes)  # type: ignore[arg-type]
        self.order = torch.tensor(order)
        """Their class of each of ours."""
        self.model = SpeechLM(self.config)
        self.model.load_state_dict(lm_to_ours(version, self.config, golden.weights))  # type: ignore[arg-type]
        self.model.eval()

    def theirs(self, values: Tensor) -> Tensor:
        """Classes along the last axis in their order."""
        out = torch.empty_like(values)
        out[..., self.order] = values
        return out

    def layouts(self, name: str) -> list[Layout]:
        golden, sizes = self.golden, self.golden.sizes
        block_text, block_speech = sizes["mix_ratio"]
        items = []
        num_rows = golden[f"in.{name}.text"].shape[0]
        wants = {"uni": torch.ones(num_rows), "bi": torch.zeros(num_rows)}
        draws = wants[name] if name in wants else golden["in.mixed.draw"]
        for row, draw in enumerate(draws):
            parts = {
                part: golden[f"in.{name}.{part}"][row, : golden[f"in.{name}.{part}_len"][row]]
                for part in ("text", "speech", "instruct")
                if f"in.{name}.{part}" in golden.tensors
            }
            text, speech = parts["text"].tolist(), parts["speech"].tolist()
            instruction = parts["instruct"].tolist() if "instruct" in parts else []
            size = self.config.codebook_size
            if draw < 0.5 and fits_interleaved(len(text), len(speech), block_text, block_speech):
                layout = interleaved(
                    text,
                    speech,
                    size,
                    block_text=block_text,
                    block_speech=block_speech,
                    instruction=instruction,
                )
            else:
                layout = one_shot(text, speech, size, instruction=instruction)
            items.append(layout)
        return items


@pytest.fixture(scope="module", params=[2, 3])
def case(request: pytest.FixtureRequest, golden: Callable[[str], Any]) -> Case:
    return Case(request.param, golden(FILES[request.param]))


@pytest.fixture(scope="module")
def second(golden: Callable[[str], Any]) -> Case:
    return Case(2, golden("lm"))


def test_golden_sizes_are_those_of_the_shapes(case: Case) -> None:
    sizes, backbone = case.golden.sizes, case.config.backbone
    assert backbone.num_layers == sizes["layers"]
    assert backbone.num_heads == sizes["heads"]
    assert backbone.num_kv_heads == sizes["kv_heads"]
    assert backbone.hidden_size == sizes["hidden"]
    assert backbone.intermediate_size == sizes["ffn"]
    assert backbone.vocab_size == sizes["text_vocab"]
    assert case.config.codebook_size == sizes["speech_vocab"]


@pytest.mark.parametrize("name", ["uni", "bi", "mixed"])
def test_golden_layouts(case: Case, name: str) -> None:
    batch = LayoutBatch.from_layouts(case.layouts(name))
    golden = case.golden
    golden.check(batch.mask.sum(dim=1), f"out.{name}.seq_len")
    padding = ~batch.mask
    kind = torch.full_like(batch.kinds, -1)
    kind[batch.kinds == TEXT] = 2
    kind[batch.kinds == SPEECH] = 3
    is_special = batch.kinds == SPECIAL
    kind[is_special] = batch.ids[is_special]
    for row, length in enumerate(golden.tensors.get(f"in.{name}.instruct_len", [])):
        kind[row, 1 : 1 + length] = 4
    golden.check(kind.masked_fill(padding, -1), f"out.{name}.layout_type")
    ids = torch.where(is_special, 0, batch.ids)
    is_speech = batch.kinds == SPEECH
    ids[is_speech] = case.order[ids[is_speech]]
    golden.check(ids.masked_fill(padding, -1), f"out.{name}.layout_id")
    targets = case.order[batch.targets.clamp(min=0)].masked_fill(batch.targets == IGNORE, -1)
    golden.check(targets, f"out.{name}.target")


@pytest.mark.parametrize("name", ["uni", "bi", "mixed"])
def test_golden_losses_and_logits(case: Case, name: str) -> None:
    golden = case.golden
    batch = LayoutBatch.from_layouts(case.layouts(name))
    with torch.no_grad():
        logits = case.model(batch)
    valid = batch.targets != IGNORE
    loss = token_cross_entropy(logits, batch.targets) / valid.sum()
    golden.check(loss, f"out.{name}.loss")
    correct = (logits.argmax(dim=-1) == batch.targets)[valid].float().mean()
    golden.check(correct, f"out.{name}.accuracy")
    if f"out.{name}.logits" in golden.tensors:
        golden.check(case.theirs(logits), f"out.{name}.logits", batch.mask)


def test_golden_hidden_states(case: Case) -> None:
    batch = LayoutBatch.from_layouts(case.layouts("uni"))
    with torch.no_grad():
        hidden = case.model.backbone(
            inputs_embeds=case.model.embed(batch.kinds, batch.ids),
            attention_mask=batch.mask.long(),
            use_cache=False,
        ).last_hidden_state
    case.golden.check(hidden, "out.uni.hidden", batch.mask)


def test_golden_gradients(case: Case) -> None:
    batch = LayoutBatch.from_layouts(case.layouts("uni"))
    model = case.model.requires_grad_(True)
    loss = token_cross_entropy(model(batch), batch.targets) / (batch.targets != IGNORE).sum()
    model.zero_grad()
    loss.backward()
    gradients = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in model.named_parameters()
    }
    theirs = lm_to_theirs(case.version, case.config, gradients)  # type: ignore[arg-type]
    names = [name for name in case.golden.tensors if name.startswith("out.uni.grad.")]
    assert names
    for name in names:
        case.golden.check(theirs[name.removeprefix("out.uni.grad.")], name)


def decode(
    case: Case, monkeypatch: pytest.MonkeyPatch, request: SpeechRequest, steps: int | None
) -> tuple[list[int], Tensor, Tensor]:
    """Most likely tokens, with the logits of every step and where they are forbidden."""
    seen: list[tuple[Tensor, Tensor]] = []
    original = decoding_module.sample

    def spy(logits: Tensor, *args: Any, forbidden: Tensor, **options: Any) -> Tensor:
        seen.append((logits[0].clone(), forbidden[0].clone()))
        if steps is not None and len(seen) == steps:
            return original(logits, *args, forbidden=forbidden, **options) * 0 + eos
        return original(logits, *args, forbidden=forbidden, **options)

    eos = case.config.codebook_size
    monkeypatch.setattr(decoding_module, "sample", spy)
    tokens = generate_speech(case.model, [request], SamplingConfig(temperature=0.0))[0]
    logits = torch.stack([pair[0] for pair in seen])
    return tokens, logits, torch.stack([pair[1] for pair in seen])


@pytest.mark.parametrize("name", ["greedy", "greedy_noprompt"])
def test_golden_most_likely_tokens(
    second: Case, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    golden = second.golden
    speech = golden["in.greedy.prompt_speech"][0].tolist() if name == "greedy" else []
    request = SpeechRequest(
        text_tokens=golden["in.greedy.text"][0].tolist(),
        prompt_text_tokens=golden["in.greedy.prompt_text"][0].tolist(),
        prompt_tokens=speech,
    )
    steps = golden.sizes["greedy_steps"]
    tokens, logits, forbidden = decode(second, monkeypatch, request, steps)
    expected = golden[f"out.{name}.tokens"].tolist()
    golden.check(torch.tensor([*tokens, expected[-1]]), f"out.{name}.tokens")
    assert int(logits[-1].masked_fill(forbidden[-1], -torch.inf).argmax()) == expected[-1]
    golden.check(second.theirs(logits), f"out.{name}.logits")
    # What is forbidden is taken out without sharing its probability among the others.
    masked = logits.log_softmax(dim=-1).masked_fill(forbidden, -1e9)
    golden.check(second.theirs(masked), f"out.{name}.logp_eos_masked")


def test_golden_decoding_stops_by_itself(second: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = second.golden
    request = SpeechRequest(
        text_tokens=golden["in.greedy_short.text"][0].tolist(),
        prompt_text_tokens=golden["in.greedy.prompt_text"][0].tolist(),
        prompt_tokens=golden["in.greedy.prompt_speech"][0].tolist(),
    )
    tokens, logits, forbidden = decode(second, monkeypatch, request, None)
    golden.check(torch.tensor(tokens), "out.greedy_short.tokens")
    golden.check(second.theirs(logits), "out.greedy_short.logits")
    last = logits[-1].masked_fill(forbidden[-1], -torch.inf).argmax()
    golden.check(second.order[last][None], "out.greedy_short.stop_id")


def test_golden_text_that_comes_in_pieces(second: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    golden, config = second.golden, second.config
    sequence = InputSequence(
        "interleaved",
        block_text=golden.sizes["mix_ratio"][0],
        block_speech=golden.sizes["mix_ratio"][1],
        prompt_text=golden["in.greedy.prompt_text"][0].tolist(),
        prompt_tokens=golden["in.greedy.prompt_speech"][0].tolist(),
    )
    greedy = SamplingConfig(temperature=0.0)
    decoding = Decoding(
        second.model, KeyValueCache(second.model), sequence, sampling=greedy, seed=0
    )
    steps = golden.sizes["bistream_steps"]
    text = golden["in.greedy.text"][0].tolist()
    # Specials are left out of the choice everywhere here.
    monkeypatch.setattr(
        Decoding, "forbidden", lambda _self: list(range(config.codebook_size, config.num_classes))
    )
    logits, is_forced = [], []
    while len(decoding.tokens) < steps:
        if text and not decoding.can_step:
            sequence.add_text([text.pop(0)])
        elif not decoding.can_step:
            sequence.end_text()
        else:
            is_past_tos = sequence.is_past_tos
            decode_step(second.model, [decoding])
            assert decoding.logits is not None
            logits.append(decoding.logits.clone())
            # The reference also asks for what is forced at the end of a block; ours does not.
            ends_block = not is_past_tos and not sequence.predicts
            is_forced += [False, True] if ends_block else [False]
    golden.check(torch.tensor(decoding.tokens), "out.bistream_greedy.tokens")
    calls = golden["out.bistream_greedy.logits"]
    expected = calls[~torch.tensor(is_forced[: calls.shape[0]])]
    assert expected.shape[0] == len(logits)
    atol = golden.atol("out.bistream_greedy.logits")
    actual = second.theirs(torch.stack(logits))
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("as_reference", [False, True])
def test_golden_weights_where_text_ends_behind_a_block(
    second: Case, monkeypatch: pytest.MonkeyPatch, as_reference: bool
) -> None:
    """The lengths at which training and inference of the reference differ: from token 26 on."""
    config = second.config
    m, n = second.golden.sizes["mix_ratio"]
    draw = torch.Generator().manual_seed(0)
    sizes = ((7, config.backbone.vocab_size), (12, config.backbone.vocab_size),
             (20, config.codebook_size))  # fmt: skip
    prompt_text, text, prompt = (
        torch.randint(size, (count,), generator=draw).tolist() for count, size in sizes
    )
    sequence = InputSequence("interleaved", block_text=m, block_speech=n, prompt_text=prompt_text,
                prompt_tokens=prompt, as_reference=as_reference)  # fmt: skip
    greedy = SamplingConfig(temperature=0.0)
    decoding = Decoding(
        second.model, KeyValueCache(second.model), sequence, sampling=greedy, seed=0
    )
    monkeypatch.setattr(
        Decoding, "forbidden", lambda _self: list(range(config.codebook_size, config.num_classes))
    )
    coming, logits = list(text), []
    while len(decoding.tokens) < 40:
        if decoding.can_step:
            decode_step(second.model, [decoding])
            assert decoding.logits is not None
            logits.append(decoding.logits.clone())
        elif coming:
            sequence.add_text([coming.pop(0)])
        else:
            sequence.end_text()
    speech = [*prompt, *decoding.tokens]
    layout = interleaved([*prompt_text, *text], speech, config.codebook_size,
                         block_text=m, block_speech=n)  # fmt: skip
    # Where a code is predicted: what is asked of the model, once the prompt is over.
    places = [
        place
        for place, target in enumerate(layout.targets)
        if target != IGNORE and target < config.codebook_size
    ][len(prompt) :]
    if as_reference:
        # The last speech of the third block once more, before the rest of the text.
        again = 1 + 3 * (m + n)
        layout.kinds.insert(again, SPEECH)
        layout.ids.insert(again, speech[3 * n - 1])
        layout.targets.insert(again, IGNORE)
        places = [place + (place >= again) for place in places]
    with torch.no_grad():
        whole = second.model(LayoutBatch.from_layouts([layout]))[0]
    torch.testing.assert_close(torch.stack(logits), whole[places], rtol=0, atol=1e-4)
    if as_reference:
        with torch.no_grad():
            plain = LayoutBatch.from_layouts(
                [interleaved([*prompt_text, *text], speech, config.codebook_size,
                             block_text=m, block_speech=n)]
            )  # fmt: skip
            other = second.model(plain)[0]
        trained = other[[place - (place >= again) for place in places]]
        difference = (torch.stack(logits) - trained).abs().amax(dim=-1)
        assert difference[:25].max() < 1e-4 < 0.01 < difference[25]
