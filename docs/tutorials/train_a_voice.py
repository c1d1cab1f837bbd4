# %% [markdown]
# # Train a voice from a folder of recordings
#
# A folder of recordings becomes a bundle that speaks better in that voice: refine the
# recordings, compute their speech tokens, fine-tune the decoder, put it into a copy of the
# bundle. It needs the extra `train`.
#
# The numbers of steps are tiny, so that the program runs in minutes on two cores. For a result
# worth hearing, have at least ten minutes of recordings, and thousands of steps.

# %%
import subprocess
import sys
from pathlib import Path

from tokenlm import Synthesizer
from tokenlm.audio import load_audio, save_audio
from tokenlm.checkpoint.resolve import packaged_configs

RECORDINGS = Path("recordings")
STEPS = 20


def tokenlm(*words):
    """Runs `tokenlm` as in a shell."""
    subprocess.run([sys.executable, "-m", "tokenlm", *map(str, words)], check=True)


# %% [markdown]
# ## The recordings
#
# Sound files of any length in a folder of the speaker's name, each with its words in a `.txt`
# beside it, or without. Here the embedded bundle speaks some in place of a person: leave this
# cell out, and put your own into `recordings/NAME/`.

# %%
synthesizer = Synthesizer.from_pretrained("mini-en")
bundle = synthesizer.components.folder
sentences = [
    "The garden is full of birds in the morning.",
    "She put the letters back into the old wooden box.",
    "We walked along the river until it was dark.",
    "Nobody knew why the lights had gone out.",
    "The baker opens his shop at six every day.",
    "My brother plays the piano better than I do.",
    "There is a small bridge behind the church.",
    "They waited for the last bus in the rain.",
    "The children built a castle out of sand.",
    "He forgot his umbrella on the train again.",
    "A cup of tea would be nice after the long walk.",
    "The road to the village was covered with snow.",
]
for number, sentence in enumerate(sentences):
    path = RECORDINGS / "guest" / f"{number:03}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    spoken = synthesizer.generate(sentence, voice="rms-low", seed=number)
    save_audio(path, spoken, synthesizer.sample_rate)
    path.with_suffix(".txt").write_text(sentence, encoding="utf-8")

# %% [markdown]
# ## Refine
#
# Raw recordings are cut, levelled and checked: what the recogniser of the bundle understands is
# compared with the words. The result is a manifest, one JSON object per line; what was left out
# goes to a rejects file, and a report says why.

# %%
tokenlm(
    "data", "refine", RECORDINGS, "data/all.jsonl",
    "--recogniser", "ours:mini-en", "--config", packaged_configs() / "refine" / "letters.yaml",
)  # fmt: skip
tokenlm("data", "validate", "data/all.jsonl")

# %% [markdown]
# The last rows are for validation, the rest to learn from.

# %%
rows = Path("data/all.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
print(len(rows), "clips")
Path("data/train.jsonl").write_text("".join(rows[:-2]), encoding="utf-8")
Path("data/validation.jsonl").write_text("".join(rows[-2:]), encoding="utf-8")

# %% [markdown]
# ## Speech tokens
#
# The decoder learns to turn the tokens of the bundle's own speech tokenizer into the sound of
# the recordings.

# %%
for split in ("train", "validation"):
    tokenlm(
        "data", "precompute", f"data/{split}.jsonl", f"data/{split}.tokens.jsonl",
        "--tokenizer", bundle / "speech_tokenizer",
    )  # fmt: skip

# %% [markdown]
# ## Fine-tune
#
# The stage `flow` goes on from the decoder of the bundle, in its sizes. The same command again
# goes on from the newest checkpoint.

# %%
tokenlm(
    "train", "flow", "run=runs/flow",
    f"initial.flow={bundle / 'flow'}", f"model={bundle / 'flow' / 'config.yaml'}",
    f"speaker_encoder={bundle / 'speaker_encoder'}", f"vocoder={bundle / 'vocoder'}",
    "data.train=data/train.tokens.jsonl", "data.valid=data/validation.tokens.jsonl",
    "optim.lr=1e-4", "optim.warmup_steps=5", f"optim.max_steps={STEPS}",
    "batch.max_seconds_per_batch=20", "batch.num_workers=0",
    "log.log_every=5", f"log.evaluate_every={STEPS}", "log.sample_every=0",
)  # fmt: skip

# %% [markdown]
# `runs/flow` holds the resolved config, metrics, checkpoints and, in `export`, the component.
#
# ## A bundle of your own
#
# The component takes the place of the old one in a copy of the bundle; parts that do not agree
# are refused.

# %%
tokenlm("export", "bundle", "mine", "--bundle", bundle, "flow=runs/flow/export/flow")
tokenlm("inspect", "mine")

# %% [markdown]
# ## Speak
#
# The voice is prepared from one of the recordings, by the new bundle.

# %%
recording = RECORDINGS / "guest" / "000.wav"
tokenlm(
    "clone", "This is my own voice.", "--bundle", "mine", "--prompt-audio", recording,
    "--prompt-text", sentences[0], "-o", "mine.wav", "--seed", "0",
)  # fmt: skip
assert load_audio("mine.wav", synthesizer.sample_rate).shape[0] > synthesizer.sample_rate // 2

# %% [markdown]
# How much better it is, `tokenlm evaluate` says: [Evaluate](../evaluate.md). Other parts of the
# bundle learn in the same way: [Fine-tune](../fine-tune.md).
