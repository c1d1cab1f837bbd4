"""What the stages of post-training share: requests, scores, regressions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tokenlm.checkpoint import packaged_configs, save_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.models.lm import SpeechLM
from tokenlm.models.lm.layout import IGNORE
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.text.normalize import normalize
from training.data.exclusion import evaluation_exclusion
from training.evaluation.sets import read_text_set
from training.loop.task import StepInfo
from training.rl import regression
from training.rl.regression import RegressionConfig, find_regression
from training.rl.rewards import Answer, TokenAsrReward
from training.rl.rollout import evaluating, roll_out
from training.run import load_task, main
from training.stages.dpo import choose_pair, sequence_log_probs
from training.stages.grpo import GRPOTask
from training.stages.post_training import PolicyTask
from training.stages.token_reward import pad_speech

PLAIN = Path(__file__).parents[3] / "configs" / "eval" / "plain.jsonl"


def metrics(folder: Path, kind: str = "train") -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_pairs_by_hand() -> None:
    assert choose_pair([0.2, 0.9, 0.5], 0.1) == (1, 0, True)
    assert choose_pair([0.5, None, 0.2], 0.1) == (0, 2, True)
    assert choose_pair([0.5, 0.45], 0.1) == (0, 1, False)  # too much alike
    assert choose_pair([0.5, 0.5], 0.0)[2] is False
    assert choose_pair([None, 0.5], 0.1)[2] is False
    assert choose_pair([None, None], 0.1)[2] is False


def test_regressions_by_hand() -> None:
    config = RegressionConfig(
        max_read_error_rise=0.03, max_rate_change=0.2, max_similarity_drop=0.02
    )
    before = {"read_error": 0.2, "speaking_rate": 5.0, "similarity": 0.8}
    assert find_regression(before, {**before}, config) == ""
    better = {"read_error": 0.1, "speaking_rate": 5.9, "similarity": 0.9}
    assert find_regression(before, better, config) == ""
    assert "read back rose by 0.040 to 0.240" in find_regression(
        before, {**before, "read_error": 0.24}, config
    )
    assert "changed by +22 %" in find_regression(before, {**before, "speaking_rate": 6.1}, config)
    assert "changed by -40 %" in find_regression(before, {**before, "speaking_rate": 3.0}, config)
    assert "fell by 0.030" in find_regression(before, {**before, "similarity": 0.77}, config)
    both = find_regression(before, {**before, "read_error": 0.3, "speaking_rate": 9.0}, config)
    assert " and " in both


OTHER_SAMPLING: list[dict[str, float]] = [
    {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "repetition_window": 0},
    {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "repetition_window": 0},
    {"top_k": 25, "top_p": 1.0, "repetition_window": 0},
    {"top_k": 0, "top_p": 0.95, "repetition_window": 0},
    {"top_k": 0, "top_p": 1.0, "repetition_window": 10},
    {"temperature": 1.0},  # the rest is that of speaking
]


@pytest.mark.parametrize("sampling", OTHER_SAMPLING)
def test_answers_are_drawn_as_the_losses_assume(
    sampling: dict[str, float], stage_config: Callable[..., Path]
) -> None:
    for stage in ("grpo", "token_reward"):
        with pytest.raises(ValueError, match=f"rollout_sampling: the loss of {stage} assumes"):
            load_task(stage_config(stage, rollout_sampling=sampling), [])
    # Preferences hold whoever gave the answers.
    load_task(stage_config("dpo", rollout_sampling=sampling), [])
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_window": 0}
    load_task(stage_config("grpo", rollout_sampling=plain), [])


@pytest.fixture
def task(stage_config: Callable[..., Path]) -> GRPOTask:
    _, found = load_task(stage_config("grpo"), [])
    assert isinstance(found, GRPOTask)
    torch.manual_seed(0)
    found.build()
    return found


def test_answers_depend_on_step_and_item_alone(task: GRPOTask) -> None:
    items = [task.texts[0], task.texts[1]]
    both = task.answers(task.policy, items, StepInfo(0, 3, 0), 2)
    assert [rollout.request.segment for rollout in both] == [0, 1, 0, 1]
    assert both[0].tokens != both[1].tokens
    # The second item of the batch is the same as the first of a micro-batch that starts there.
    alone = task.answers(task.policy, items[1:], StepInfo(0, 3, 1), 2)
    assert [rollout.tokens for rollout in alone] == [rollout.tokens for rollout in both[2:]]
    other = task.answers(task.policy, items, StepInfo(0, 4, 0), 2)
    assert [rollout.tokens for rollout in other] != [rollout.tokens for rollout in both]


def test_answers_take_temperatures_in_turn(task: GRPOTask) -> None:
    items, step = [task.texts[0], task.texts[1]], StepInfo(0, 3, 0)
    plain = [rollout.tokens for rollout in task.answers(task.policy, items, step, 4)]
    mixed = [r.tokens for r in task.answers(task.policy, items, step, 4, [1.0, 0.0])]
    assert task.config.rollout_sampling.temperature == 1.0
    for first in (0, 4):
        # The warm ones are what they were, the cold ones all the same, of the same text.
        assert mixed[first] == plain[first] and mixed[first + 2] == plain[first + 2]
        assert mixed[first + 1] == mixed[first + 3] != plain[first + 1]
    assert mixed[1] != mixed[5]


def test_prompts_are_other_utterances_of_the_speaker(task: GRPOTask) -> None:
    texts = task.texts
    drawn = [texts.draw(1, torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert all(item.text == texts.pairs[1].text for item in drawn)
    prompts = {item.prompt for item in drawn}
    speaker = texts.pairs[1].speaker
    allowed = {pair.speech for pair in texts.pairs if pair.speaker == speaker}
    assert () in prompts and len(prompts) > 1
    assert prompts - {()} <= allowed - {texts.pairs[1].speech}


def test_some_texts_are_made_harder(stage_config: Callable[..., Path]) -> None:
    _, task = load_task(stage_config("grpo", hard_share=0.5, prompt_share=0.0), [])
    assert isinstance(task, GRPOTask)
    task.build()
    drawn = [task.texts.draw(0, torch.Generator().manual_seed(seed)) for seed in range(60)]
    changed = [item for item in drawn if item.words != task.texts[0].words]
    assert 15 <= len(changed) <= 45
    for item in changed:
        assert list(item.text) == list(task.tokenizer.encode(item.words)) and not item.prompt
    again = task.texts.draw(0, torch.Generator().manual_seed(3))
    assert again == drawn[3]
    with pytest.raises(ValueError, match="hard_kinds has no 'long'"):
        load_task(stage_config("grpo", hard_kinds={"long": 1.0}), [])
    with pytest.raises(ValueError, match="hard_kinds must not"):
        load_task(stage_config("grpo", hard_kinds={"short": -1.0}), [])
    with pytest.raises(ValueError, match="hard_share"):
        load_task(stage_config("grpo", hard_share=1.5), [])


def test_no_text_of_a_test_set_is_drawn(stage_config: Callable[..., Path], tmp_path: Path) -> None:
    # Every word of the toy texts is one here, and so is every pair: "short" can give nothing else.
    _, task = load_task(stage_config("grpo"), [])
    assert isinstance(task, GRPOTask)
    task.build()
    words = {word for pair in task.texts.pairs for word in pair.words.strip(".").split()}
    test_set = tmp_path / "set.txt"
    test_set.write_text("\n".join(sorted(words)))
    settings = {"hard_share": 0.5, "counted_share": 0.5, "prompt_share": 0.0}
    settings["hard_kinds"] = {"short": 9.0}
    path = stage_config("grpo", **settings)
    data = yaml.safe_load(path.read_text())["data"]
    path = stage_config("grpo", "more", **settings, data={**data, "test_sets": [str(test_set)]})
    _, task = load_task(path, [])
    assert isinstance(task, GRPOTask)
    task.build()
    drawn = [task.texts.draw(0, torch.Generator().manual_seed(seed)) for seed in range(80)]
    exclusion = evaluation_exclusion((test_set,))
    assert all(exclusion.excludes(word) for word in words)
    assert not [item.words for item in drawn if exclusion.excludes(item.words)]
    known = {word for pair in task.texts.pairs for word in pair.words.split()}
    counted = [item for item in drawn if not set(item.words.strip(".!?").split()) & known]
    assert 20 <= len(counted) <= 60
    for item in counted:
        assert list(item.text) == list(task.tokenizer.encode(item.words)) and not item.prompt
    with pytest.raises(ValueError, match="counted_share must be"):
        load_task(stage_config("grpo", hard_share=0.6, counted_share=0.5), [])


@pytest.mark.slow
def test_plain_texts_are_those_of_the_regression_set_by_default(task: GRPOTask) -> None:
    default = RegressionConfig()
    assert str(default.plain_texts) == "configs/eval/regression.jsonl"
    lines = read_text_set(packaged_configs() / "eval" / "regression.jsonl").lines
    asked: list[str] = []

    def measure(policy: Any, texts: Sequence[Any], *others: Any) -> dict[str, float]:
        asked.extend(text for _, text in texts)
        return {"read_error": 0.1, "speaking_rate": 5.0}

    found = regression.Regression(default, task.tokenizer, task.read_back)
    found._measure = measure  # type: ignore[method-assign]
    found.check(task.reference, task.policy, [((1,), "not these")], [((), ())])
    assert len(asked) == 2 * default.num_texts
    places = [[normalize(line.text) for line in lines].index(text) for text in asked[:40]]
    assert places == sorted(set(places)) and places[-1] > 0.95 * len(lines)  # of every kind


@pytest.mark.slow
def test_a_policy_without_prompts_is_measured_without(
    stage_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    sampling = {"temperature": 0.6}
    limits = {"num_texts": 3, "sampling": sampling}

    def listen(model: Any, requests: Sequence[Any], how: Any) -> list[Any]:
        asked.append((how.temperature, [request.prompt_tokens for request in requests]))
        return roll_out(model, requests, how)

    monkeypatch.setattr(regression, "roll_out", listen)
    for share in (0.0, 0.5):
        _, task = load_task(stage_config("grpo", prompt_share=share, regression=limits), [])
        task.build()
        task.evaluate([], task.modules)
    without, with_prompts = asked[0], asked[2]
    assert without == (0.6, [(), (), ()])
    assert with_prompts[0] == 0.6 and all(len(prompt) for prompt in with_prompts[1])


def test_a_skipped_reward_takes_its_answer_out(task: GRPOTask) -> None:
    items = [task.texts[0], task.texts[1]]
    score = task.score

    def skipping(items: Sequence[Any], rollouts: Sequence[Any]) -> Any:
        values, found = score(items, rollouts)
        return [None, *values[1:]], found

    task.score = skipping  # type: ignore[method-assign]
    prepared = task.prepare(items, StepInfo(0, 0, 0))
    targets, advantages = prepared.tensors["layouts"].targets, prepared.tensors["advantages"]
    assert targets.shape == advantages.shape and targets.shape[0] == 1
    # Without the first answer, and with one target for each token and end of the others.
    rest = task.answers(task.policy, items, StepInfo(0, 0, 0), task.config.group)[1:]
    expected = sum(len(rollout.tokens) + rollout.has_ended for rollout in rest)
    assert int((targets != IGNORE).sum()) == expected == prepared.counts["grpo/policy"]
    first = int((targets != IGNORE).int().argmax())
    assert not bool(advantages[0, : len(rest[0].request.prefix)].any()) and first > 0


def test_a_row_of_answers_is_worth_what_each_is_alone(task: GRPOTask) -> None:
    items = [task.texts[0], task.texts[1]]
    rollouts = task.answers(task.policy, items, StepInfo(0, 0, 0), 3)
    packed = task.packed(rollouts)
    assert len({len(rollout.tokens) for rollout in rollouts}) > 1
    with evaluating(task.policy), torch.no_grad():
        row = sequence_log_probs(task.policy, packed)
        logits = task.policy(packed.batch)
        for number, rollout in enumerate(rollouts):
            alone = task.packed([rollout])
            value = sequence_log_probs(task.policy, alone)
            torch.testing.assert_close(row[number : number + 1], value, rtol=1e-4, atol=1e-4)
            start = int(packed.starts[number])
            torch.testing.assert_close(
                logits[:, start : start + alone.targets.shape[1]],
                task.policy(alone.batch),
                rtol=1e-4,
                atol=1e-4,
            )
    values = torch.arange(6.0)
    assert packed.spread(values)[0, packed.starts].tolist() == values.tolist()


def test_the_policy_that_answers_lags_behind(task: GRPOTask) -> None:
    items = [task.texts[0]]
    task.prepare(items, StepInfo(0, 0, 0))
    with torch.no_grad():
        task.policy.head.bias += 1.0
    rollout_policy = task._rollout_policy(1)
    assert not torch.equal(rollout_policy.head.bias, task.policy.head.bias)
    saved = task.state()
    assert torch.equal(task._rollout_policy(2).head.bias, task.policy.head.bias)
    task.load_state(saved)
    assert torch.equal(task._rollout_policy(1).head.bias, rollout_policy.head.bias)


def test_padded_speech_by_hand(task: GRPOTask) -> None:
    rollouts = task.answers(task.policy, [task.texts[0]], StepInfo(0, 0, 0), 1)
    found = pad_speech(rollouts, [[1, 1, 2]])
    length, prefix = len(rollouts[0].tokens), len(rollouts[0].request.prefix)
    assert found["positions"][0, :2].tolist() == [prefix - 1, prefix]
    assert found["tokens"][0, :length].tolist() == list(rollouts[0].tokens)
    assert found["weight"].tolist() == [1.0]
    # A double letter needs a blank between: four places for three characters.
    short = [type(rollouts[0])(request=rollouts[0].request, tokens=(1, 2, 3), has_ended=True)]
    assert pad_speech(short, [[1, 1, 2]])["weight"].tolist() == [0.0]
    assert pad_speech(short, [[1, 2, 3]])["weight"].tolist() == [1.0]
    twice = pad_speech(short, [[1, 1, 2]], outputs_per_token=2)
    assert twice["weight"].tolist() == [1.0]
    assert twice["num_outputs"].tolist() == [2 * int(count) for count in twice["num_tokens"]]


def test_modes_are_given_back() -> None:
    model = torch.nn.Dropout()
    with evaluating(model):
        assert not model.training
    assert model.training
    with evaluating(model.eval()):
        pass
    assert not model.training


@pytest.fixture
def likes_threes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward that can be learned in moments: the share of one code."""

    def score(self: TokenAsrReward, answers: Sequence[Answer]) -> list[float | None]:
        return [answer.tokens.count(3) / max(len(answer.tokens), 1) for answer in answers]

    monkeypatch.setattr(TokenAsrReward, "__call__", score)


LEARN = {
    "optim": {"max_steps": 15, "warmup_steps": 1, "lr": 3e-3, "ema_decay": 0.0},
    "log": {"log_every": 1, "evaluate_every": 0, "save_every": 0},
    "rewards": {"token_asr": 1.0, "duration": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["grpo", "dpo"])
def test_the_reward_rises(
    stage: str, stage_config: Callable[..., Path], tmp_path: Path, likes_threes: None
) -> None:
    assert main(["--config", str(stage_config(stage, **LEARN)), "group=4"]) == 0
    found = [row["reward/token_asr"] for row in metrics(tmp_path / "run")]
    assert sum(found[-5:]) / 5 > sum(found[:3]) / 3 + 0.15, found


@pytest.mark.slow
def test_what_the_recogniser_reads_becomes_more_likely(
    stage_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a random recogniser, long speech is the least likely: its length is kept out of it.
    for function in (
        "tokenlm.models.lm.decoding.speech_bounds",
        "training.rl.rollout.speech_bounds",
    ):
        monkeypatch.setattr(function, lambda model, num_text: (24, 24))
    path = stage_config("token_reward", **LEARN, loss_weights={"token_reward/kl": 0.0})
    assert main(["--config", str(path)]) == 0
    found = [row["token_reward/ctc"] for row in metrics(tmp_path / "run")]
    # Three steps go through all texts once.
    assert sum(found[-3:]) / 3 < sum(found[:3]) / 3 - 0.15, found


def test_a_run_that_makes_plain_speech_worse_stops_before_it_saves(
    stage_config: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = {"log_every": 1, "evaluate_every": 2, "save_every": 1}
    optim = {"max_steps": 4, "warmup_steps": 1, "lr": 1e-3, "ema_decay": 0.5}
    # No change of the pace at all is allowed, and the pace of a random model changes.
    limits = {"num_texts": 2, "max_read_error_rise": 0.0, "max_rate_change": 0.0}
    fast = {**optim, "lr": 0.3}
    path = stage_config("grpo", log=log, optim=fast, regression=limits)
    assert main(["--config", str(path)]) == 0
    folder = tmp_path / "run"
    assert "(regression: the " in caplog.text
    assert not (folder / "export").exists()
    assert [row["step"] for row in metrics(folder)] == [1, 2]
    assert (folder / "step-000001").is_dir() and not (folder / "step-000002").exists()
    measured = metrics(folder, "valid")[0]
    assert measured["plain/speaking_rate"] != measured["plain/reference_speaking_rate"]


def test_mistakes_are_sentences(
    stage_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(run: str, stage: str, status: int, *more: str, **changes: Any) -> str:
        path = stage_config(stage, run, **changes)
        assert main(["--config", str(path), *more]) == status
        return capsys.readouterr().err

    assert "starts from a trained speech LM" in told("1", "grpo", 1, initial={})
    assert "the reward token_asr reads tokens" in told("2", "dpo", 1, token_recognizer=None)
    assert "needs token_recognizer" in told("3", "token_reward", 1, token_recognizer=None)
    assert "group must be at least 2" in told("4", "grpo", 2, group=1)
    # A recogniser of another script would find no fault in plain English speech.
    config = TokenRecognizerConfig(levels=(3, 3), dim=8, num_heads=2, num_layers=1, alphabet="你好")
    state = TokenRecognizer(config).state_dict()
    save_component(tmp_path / "zh", kind="token_recognizer", config=config, state_dict=state)
    plain = f"regression.plain_texts={PLAIN}"
    more = {"token_recognizer": str(tmp_path / "zh")}
    assert "no character that token_recognizer knows" in told("5", "grpo", 1, plain, **more)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpo", "grpo"])
def test_additions_alone_are_tuned(
    stage: str, stage_config: Callable[..., Path], tmp_path: Path, corpus: Path
) -> None:
    pytest.importorskip("peft")
    path = stage_config(stage, lora={"rank": 2})
    assert main(["--config", str(path)]) == 0
    tuned = load_model(tmp_path / "run" / "export" / "speech_lm", SpeechLM).state_dict()
    start = load_model(corpus / "speech_lm", SpeechLM).state_dict()
    assert tuned.keys() == start.keys()
    norm = "backbone.norm.weight"
    torch.testing.assert_close(tuned[norm], start[norm], rtol=1e-3, atol=1e-3)
    query = "backbone.layers.0.self_attn.q_proj.weight"
    difference = tuned[query] - start[query].half().float()
    assert difference.abs().max() > 0


def test_a_policy_in_pieces_answers_by_a_copy(
    stage_config: Callable[..., Path],
) -> None:
    _, task = load_task(stage_config("grpo", sync_every=1))
    assert isinstance(task, GRPOTask)
    task.build()
    task.phases()
    assert task.whole_policy(0) is task.policy
    asked = []

    def full_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        asked.append(module)
        return {name: value + 1.0 for name, value in module.state_dict().items()}

    task.full_state = full_state
    whole = task.whole_policy(0)
    assert whole is not task.policy and whole is not task.reference
    weight = whole.head.weight
    torch.testing.assert_close(weight, task.policy.head.weight + 1.0)
    assert task.whole_policy(0) is whole and len(asked) == 1, "gathered once a step"
    assert task.whole_policy(1) is whole and len(asked) == 2


@pytest.mark.parametrize("stage", ["grpo", "dpo", "token_reward"])
def test_all_that_rewards_runs_where_the_policy_does(
    stage: str, stage_config: Callable[..., Path], tiny_bundle: Path
) -> None:
    """From the first step: a resumed run may not find anything in another place."""
    rewards = {"token_asr": 1.0, "similarity": 1.0, "bundle": str(tiny_bundle)}
    _, task = load_task(stage_config(stage, rewards=rewards))
    assert isinstance(task, PolicyTask)
    task.build()
    task.phases()
    device = torch.device("meta")
    task.to(device)
    sound = task.rewards._sound
    assert task.device == device and sound is not None and task.read_back is not None
    parts = sound._synthesizer.components
    used = {
        **task.modules,
        "recogniser": task.read_back.recognizer,
        "of the regression": task.regression.read_back.recognizer,  # type: ignore[union-attr]
        **{name: getattr(parts, name) for name in ("flow", "vocoder", "speaker_encoder")},
    }
    assert parts.device == device
    for name, module in used.items():
        tensors = [*module.parameters(), *module.buffers()]
        assert tensors and all(tensor.device == device for tensor in tensors), name
