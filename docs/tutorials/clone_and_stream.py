# %% [markdown]
# # Clone and stream
#
# A voice is taken from one recording, speaks, and streams. The program needs `tokenlm` and
# nothing else: the recording is the one that comes with the embedded bundle. Put the path of
# your own, and its words, in its place.

# %%
from tokenlm import Synthesizer
from tokenlm.audio import load_audio, save_audio

synthesizer = Synthesizer.from_pretrained("mini-en")
recording = synthesizer.components.folder / "demo_prompt.wav"
words = recording.with_suffix(".txt").read_text(encoding="utf-8")
print(words)

# %% [markdown]
# ## Clone
#
# `prepare_voice` keeps what the models need of a recording: speech tokens, a mel spectrogram
# and a speaker embedding. With `mini-en` it also fits the voice to the recording, which takes
# some seconds once. The file can be loaded by anyone with the same bundle.

# %%
voice = synthesizer.prepare_voice(recording, words, name="guest")
voice.save("guest.voice")
print(voice.prompt_tokens.shape[0], "speech tokens")

# %% [markdown]
# ## Speak
#
# The waveform is float32 at `sample_rate`. The same seed gives the same waveform.

# %%
text = "The train leaves at half past seven. Please don't be late."
waveform = synthesizer.generate(text, voice=voice, seed=0)
save_audio("guest.wav", waveform, synthesizer.sample_rate)
print(f"{waveform.shape[0] / synthesizer.sample_rate:.2f} seconds")

# %% [markdown]
# ## Stream
#
# A stream gives the same waveform in chunks. The first is there long before the last word is
# written.

# %%
import time

import torch

start = time.perf_counter()
chunks = []
with synthesizer.stream(text, voice=voice, seed=0) as stream:
    for chunk in stream:
        if not chunks:
            print(f"first sound after {1000 * (time.perf_counter() - start):.0f} ms")
        chunks.append(chunk)
print(f"all of it after {1000 * (time.perf_counter() - start):.0f} ms, {len(chunks)} chunks")

difference = (torch.cat(chunks) - waveform).abs().max().item()
print("largest difference from generate:", difference)
assert difference < 1e-4

# %% [markdown]
# ## Text that is still being written
#
# The text may be an iterator, such as the answer of a language model. How it is cut into pieces
# does not matter.


# %%
def written(size):
    """A text as a language model would write it, `size` characters at a time."""
    answer = "Of course. The museum is open until six, and on Sundays it costs nothing."
    for place in range(0, len(answer), size):
        yield answer[place : place + size]


few = torch.cat(list(synthesizer.stream(written(20), voice=voice, seed=0)))
many = torch.cat(list(synthesizer.stream(written(3), voice=voice, seed=0)))
save_audio("answer.wav", few, synthesizer.sample_rate)
print("largest difference:", (few - many).abs().max().item())
assert torch.equal(few, many)

# %% [markdown]
# ## Convert and transcribe
#
# `convert` says what a recording says in another voice; `transcribe` writes down what the
# recogniser behind the speech tokens understands, as it sounds rather than as it is spelled.

# %%
converted = synthesizer.convert("answer.wav", voice=synthesizer.voices[0], seed=0)
save_audio("converted.wav", converted, synthesizer.sample_rate)
print(synthesizer.transcribe("converted.wav"))

# %% [markdown]
# ## The same on the command line
#
# ```sh
# tokenlm prepare-voice me.wav --text "what me.wav says" -o me.voice
# tokenlm say "The train leaves at half past seven." --voice me.voice --play
# cat answer.txt | tokenlm say - --voice me.voice -o - | aplay
# ```
#
# What a stream promises is on the page [Clone and
# stream](../clone-and-stream.md#the-streaming-contract).

# %%
assert load_audio("converted.wav", synthesizer.sample_rate).shape == converted.shape
