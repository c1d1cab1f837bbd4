// The page: what its buttons do.

import * as api from "./api.js";
import { MelPicture, WavePicture } from "./pictures.js";
import { Player } from "./player.js";
import { SampleReader, join, wavBlob } from "./samples.js";
import { MelSpectrogram } from "./spectrum.js";
import { setUpVoiceForm } from "./voice_form.js";
import { WordMarker } from "./words.js";

const MOST_VOICES = 2000;
const part = (id) => document.getElementById(id);

let current = null;
let marker = null;
let sampleRate = 24000;
let hasWordTimes = false;
let voiceTypes = new Map();

function tell(id, sentence, isBad = false) {
  part(id).textContent = sentence;
  part(id).classList.toggle("bad", isBad);
}

// A button that is really disabled would lose the focus, and who uses the keys their place.
function allow(id, isAllowed) {
  part(id).setAttribute("aria-disabled", String(!isAllowed));
}

async function refresh(chosen = part("voice").value) {
  const { found, more } = await api.voices(MOST_VOICES);
  voiceTypes = new Map(found.map((voice) => [voice.id, voice.type]));
  const options = found.map((voice) => new Option(voice.name, voice.id, false, voice.id === chosen));
  part("voice").replaceChildren(...options);
  const mixed = part("mix-voice").value;
  const others = found.map((voice) => new Option(voice.name, voice.id, false, voice.id === mixed));
  part("mix-voice").replaceChildren(new Option("no other", "", true, !mixed), ...others);
  showDelete();
  if (more) tell("status", `The list shows the first ${MOST_VOICES} voices.`);
}

function showDelete() {
  part("delete-voice").hidden = voiceTypes.get(part("voice").value) !== "audio_sample";
}

async function connect() {
  try {
    const health = await api.health();
    part("key-row").hidden = !health.needs_key;
    part("about").textContent = `Bundle ${health.bundle}, version ${health.version}.`;
    if (health.needs_key && !part("key").value) {
      tell("status", "Enter the key of this server.");
      return;
    }
    const model = await api.model();
    part("about").textContent = `${model.id}: ${model.description}`;
    sampleRate = model.sample_rate;
    offerAttributes(model.voice_attributes);
    hasWordTimes = model.word_times;
    if (health.needs_key) tell("status", "Ready.");
    await refresh();
  } catch (error) {
    tell("status", error.message, true);
  }
}

// One utterance: asked for, drawn and played while it comes.
async function speak() {
  if (current) return;
  const controller = new AbortController();
  current = { controller, player: null };
  allow("speak", false);
  allow("cancel", true);
  part("download").hidden = true;
  part("again").hidden = true;
  for (const id of ["first", "length", "total", "factor", "dry"]) part(id).textContent = "–";
  tell("status", "Waiting for the first sound…");
  try {
    await hear(controller.signal);
  } catch (error) {
    if (error.name === "AbortError") tell("status", "Cancelled.");
    else tell("status", error.message, true);
  } finally {
    await current.player?.stop();
    current = null;
    allow("speak", true);
    allow("cancel", false);
  }
}

// A slider for each attribute by which this bundle can design voices.
function offerAttributes(attributes) {
  part("design").hidden = !Object.keys(attributes).length;
  const sliders = Object.entries(attributes).map(([name, meaning]) => {
    const row = document.createElement("p");
    const label = document.createElement("label");
    label.htmlFor = `attribute-${name}`;
    label.textContent = name[0].toUpperCase() + name.slice(1);
    const slider = document.createElement("input");
    Object.assign(slider, { id: `attribute-${name}`, type: "range", min: -2.5, max: 2.5, step: 0.1 });
    slider.value = 0;
    slider.name = name;
    slider.title = meaning;
    row.append(label, slider);
    return row;
  });
  part("attributes").replaceChildren(...sliders);
}

// The voice that was chosen, mixed, or designed, as the server takes it.
function chosenVoice() {
  const name = part("voice").value || null;
  const sliders = [...part("attributes").querySelectorAll("input")];
  const moved = sliders.filter((slider) => Number(slider.value) !== 0);
  const attributes = Object.fromEntries(moved.map((slider) => [slider.name, Number(slider.value)]));
  const description = part("describe").value.trim();
  const share = Number(part("mix-share").value);
  const other = part("mix-voice").value;
  let voice = name;
  if (other && share === 1) voice = other;
  else if (other && share > 0) voice = `${name}:${(1 - share).toFixed(2)}+${other}:${share.toFixed(2)}`;
  if (!description && !moved.length) return voice;
  const base = part("keep-voice").checked ? voice : null;
  return { description, attributes, base, seed: Number(part("seed").value) };
}

// Words with their phones, one in each line; null where there are none.
function readLexicon(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!lines.length) return null;
  return Object.fromEntries(
    lines.map((line) => {
      const [word] = line.split(/\s/, 1);
      return [word, line.slice(word.length).trim()];
    }),
  );
}

async function hear(signal) {
  const begun = performance.now();
  const request = {
    input: part("text").value,
    voice: chosenVoice(),
    speed: Number(part("speed").value),
    seed: Number(part("seed").value),
    lexicon: readLexicon(part("lexicon").value),
    word_times: hasWordTimes,
  };
  // Within the key or click that asks for speech: later, a browser may keep the page silent.
  let player = (current.player = new Player(sampleRate));
  player.wake();
  const response = await api.speak(request, signal);
  const rate = Number(response.headers.get("X-Sample-Rate"));
  if (rate !== sampleRate) {
    // Another server, behind the same address, has another bundle.
    await player.stop();
    player = current.player = new Player(rate);
    player.wake();
  }
  const wave = new WavePicture(part("wave"), rate);
  const spectrogram = new MelSpectrogram(rate);
  const mel = new MelPicture(part("mel"), 80);
  const samples = new SampleReader();
  const pieces = [];
  marker = new WordMarker(part("said"), request.input);
  const playing = player;
  marker.follow(() => playing.position, () => playing.isStopped);
  let count = 0;
  for await (const event of api.events(response.body)) {
    if (event.type === "speech.words") marker.add(event.words);
    if (event.type !== "speech.audio.delta") continue;
    const piece = samples.read(api.bytes(event.audio));
    if (!pieces.length) {
      part("first").textContent = `${Math.round(performance.now() - begun)} ms`;
      tell("status", "Speaking…");
    }
    player.push(piece);
    pieces.push(piece);
    count += piece.length;
    wave.push(piece);
    mel.push(spectrogram.push(piece));
    part("length").textContent = `${(count / rate).toFixed(2)} s`;
  }
  const seconds = (performance.now() - begun) / 1000;
  part("total").textContent = `${seconds.toFixed(2)} s`;
  part("factor").textContent = (seconds / (count / rate)).toFixed(2);
  part("wave-told").textContent = `${(count / rate).toFixed(1)} seconds of speech: ${request.input}`;
  offer(join(pieces), rate, response.headers);
  await Promise.race([
    player.finished(),
    new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    }),
  ]);
  part("dry").textContent = player.numDry === 0 ? "never" : `${player.numDry} times`;
  tell("status", `Done: ${(count / rate).toFixed(2)} seconds of speech.`);
}

// The whole of it, to be kept and heard again.
function offer(samples, rate, headers) {
  const by = headers.get("X-Synthesised");
  const facts = ["bundle", "voice", "seed"].map((name) => `${name} ${headers.get(`X-Tokenlm-${name}`)}`);
  const comment = `Synthesised speech, not a recording: ${by}, ${facts.join(", ")}`;
  if (part("download").href) URL.revokeObjectURL(part("download").href);
  const address = URL.createObjectURL(wavBlob(samples, rate, comment));
  part("download").href = address;
  part("download").hidden = false;
  part("again").src = address;
  part("again").hidden = false;
}

function cancel() {
  current?.controller.abort();
}

part("speak-form").addEventListener("submit", (event) => {
  event.preventDefault();
  speak();
});
part("again").addEventListener("play", () => {
  const audio = part("again");
  marker.follow(() => audio.currentTime, () => audio.paused);
});
part("cancel").addEventListener("click", cancel);
part("voice").addEventListener("change", showDelete);
part("key").addEventListener("change", () => {
  api.setKey(part("key").value);
  connect();
});
part("delete-voice").addEventListener("click", async () => {
  const id = part("voice").value;
  try {
    await api.deleteVoice(id);
    await refresh("");
    // The button goes with the voice; the focus would go with it.
    part("voice").focus();
    tell("status", `The voice ${id} is deleted.`);
  } catch (error) {
    tell("status", error.message, true);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") cancel();
  if (event.key === "Enter" && event.ctrlKey) part("speak-form").requestSubmit();
});
setUpVoiceForm(part, tell, refresh);
connect();
