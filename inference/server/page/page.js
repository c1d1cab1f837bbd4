// The page: what its buttons do.

import * as api from "./api.js";
import { Playback } from "./playback.js";
import { SampleReader, join, synthesisedBy, wavBlob } from "./samples.js";
import { setUpScriptForm } from "./script_form.js";
import { setUpVoiceForm } from "./voice_form.js";

const MOST_VOICES = 2000;
const part = (id) => document.getElementById(id);

// What is being spoken, and what was spoken last.
let current = null;
let playback = null;
let sampleRate = 24000;
let hasWordTimes = false;
let voiceTypes = new Map();

function tell(id, sentence, isBad = false) {
  part(id).textContent = sentence;
  part(id).classList.toggle("bad", isBad);
}

// A button that is really disabled would lose the focus, and who uses the keys their place.
function allow(buttons, isAllowed) {
  for (const button of document.querySelectorAll(buttons)) {
    button.setAttribute("aria-disabled", String(!isAllowed));
  }
}

async function refresh(chosen = part("voice").value) {
  const { found, more } = await api.voices(MOST_VOICES);
  voiceTypes = new Map(found.map((voice) => [voice.id, voice.type]));
  const options = found.map((voice) => new Option(voice.name, voice.id, false, voice.id === chosen));
  part("voice").replaceChildren(...options);
  const mixed = part("mix-voice").value;
  const others = found.map((voice) => new Option(voice.name, voice.id, false, voice.id === mixed));
  part("mix-voice").replaceChildren(new Option("no other", "", true, !mixed), ...others);
  setScriptVoices(found);
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
    part("instructions-row").hidden = !model.instructions;
    hasWordTimes = model.word_times;
    if (health.needs_key) tell("status", "Ready.");
    askForConsent(await api.consentPolicy());
    await refresh();
  } catch (error) {
    tell("status", error.message, true);
  }
}

// Speaks, one thing at a time: `work` takes a signal that it is cancelled.
async function perform(status, work) {
  if (current) return;
  current = new AbortController();
  allow(".speaks", false);
  allow(".cancels", true);
  tell(status, "Waiting for the first sound…");
  try {
    await work(current.signal);
  } catch (error) {
    if (error.name === "AbortError") tell(status, "Cancelled.");
    else tell(status, error.message, true);
  } finally {
    await playback?.stop();
    current = null;
    allow(".speaks", true);
    allow(".cancels", false);
  }
}

function openPlayback(text) {
  playback = new Playback(part, sampleRate, text);
  return playback;
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

// What a field holds that may be left empty.
function optional(id) {
  return part(id).value === "" ? null : Number(part(id).value);
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

// One text: asked for, drawn and played while it comes.
async function speakText(signal) {
  const request = {
    input: part("text").value,
    voice: chosenVoice(),
    speed: Number(part("speed").value),
    seed: Number(part("seed").value),
    lexicon: readLexicon(part("lexicon").value),
    word_times: hasWordTimes,
    instructions: part("instructions").value.trim() || null,
    duration: optional("duration"),
    sentence_gap: optional("sentence-gap"),
    paragraph_gap: optional("paragraph-gap"),
    markup: part("markup").checked,
  };
  part("download").hidden = true;
  const speech = openPlayback(request.input);
  const response = await api.speak(request, signal);
  await speech.begin(api.sampleRate(response));
  const samples = new SampleReader();
  const pieces = [];
  for await (const event of api.events(response.body)) {
    if (event.type === "speech.words") speech.addWords(event.words);
    if (event.type !== "speech.audio.delta") continue;
    if (!pieces.length) tell("status", "Speaking…");
    pieces.push(samples.read(api.bytes(event.audio)));
    speech.push(pieces.at(-1));
  }
  const facts = api.provenance(response);
  speech.complete(facts);
  offer("download", join(pieces), api.sampleRate(response), facts);
  await speech.heard(signal);
  tell("status", `Done: ${speech.seconds.toFixed(2)} seconds of speech.`);
}

// A file of speech, to be kept.
function offer(link, samples, rate, facts) {
  if (part(link).href) URL.revokeObjectURL(part(link).href);
  part(link).href = URL.createObjectURL(wavBlob(samples, rate, synthesisedBy(facts)));
  part(link).hidden = false;
}

function cancel() {
  current?.abort();
}

part("speak-form").addEventListener("submit", (event) => {
  event.preventDefault();
  perform("status", speakText);
});
part("again").addEventListener("play", () => playback.follow());
for (const button of document.querySelectorAll(".cancels")) {
  button.addEventListener("click", cancel);
}
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
  if (event.key === "Enter" && event.ctrlKey) {
    const isOfScript = part("script-form").contains(event.target);
    part(isOfScript ? "script-form" : "speak-form").requestSubmit();
  }
});
const askForConsent = setUpVoiceForm(part, tell, refresh);
const setScriptVoices = setUpScriptForm({
  part, tell, perform, openPlayback, offer, lexicon: () => readLexicon(part("lexicon").value),
});
connect();
