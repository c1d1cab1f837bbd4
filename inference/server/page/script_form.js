// The form for scripts: lines of several voices. Each keeps its sound until it is changed.

import * as api from "./api.js";
import { SampleReader, join } from "./samples.js";

const TEXTS = ["Is anybody there?", "It is me. I have brought the lamp."];

// A line of the script, and its sound.
class Line {
  #seed;
  #sound = null;
  // What the sound was made of.
  #source = "";

  constructor(item) {
    this.item = item;
    this.#seed = this.field("seed");
  }

  field(name) {
    return this.item.querySelector(`[name="${name}"]`);
  }

  // What the server is asked for. The pause is added here, so that it can be changed alone.
  get request() {
    return {
      voice: this.field("voice").value || null,
      text: this.field("text").value,
      speed: Number(this.field("speed").value),
      seed: Number(this.#seed.value),
      pause: 0,
    };
  }

  get pauseSeconds() {
    return Number(this.field("pause").value);
  }

  source(lexicon) {
    return JSON.stringify([this.request, lexicon]);
  }

  isMade(lexicon) {
    return this.#sound !== null && this.#source === this.source(lexicon);
  }

  keep(sound, source) {
    this.#sound = sound;
    this.#source = source;
  }

  forget() {
    this.#sound = null;
  }

  // Says what is wrong with a field, as the browser does where a form is sent.
  isValid() {
    return [...this.item.querySelectorAll("input, textarea")].every((field) => field.reportValidity());
  }

  vary() {
    this.#seed.value = Number(this.#seed.value) + 1;
  }

  // The speech and the silence after it.
  samples(rate) {
    return join([this.#sound, new Float32Array(Math.round(this.pauseSeconds * rate))]);
  }

  show(number, lexicon, rate) {
    this.item.querySelector("legend").textContent = `Line ${number}`;
    const state = this.item.querySelector(".state");
    if (this.#sound === null) state.textContent = "Not spoken yet.";
    else if (!this.isMade(lexicon)) state.textContent = "Changed since it was spoken.";
    else state.textContent = `${(this.#sound.length / rate).toFixed(2)} s`;
  }
}

// Takes what the page shares; returns a function that takes the voices of the server.
export function setUpScriptForm({ part, tell, perform, openPlayback, offer, lexicon }) {
  let lines = [];
  let voices = [];
  let rate = 0;
  let maker = null;

  function fillVoices(line, chosen) {
    const options = voices.map((voice) => new Option(voice.name, voice.id, false, voice.id === chosen));
    line.field("voice").replaceChildren(...options);
  }

  function add(text = "") {
    const item = part("script-line").content.firstElementChild.cloneNode(true);
    const line = new Line(item);
    // Voices take turns, as speakers do.
    fillVoices(line, voices[lines.length % Math.max(1, voices.length)]?.id);
    line.field("text").value = text;
    item.querySelector(".hear").addEventListener("click", () => speak([line]));
    item.querySelector(".vary").addEventListener("click", () => speak([line], () => line.vary()));
    item.querySelector(".remove").addEventListener("click", () => remove(line));
    for (const button of item.querySelectorAll(".speaks")) {
      button.setAttribute("aria-disabled", part("speak-script").getAttribute("aria-disabled") ?? "false");
    }
    part("script-lines").append(item);
    lines.push(line);
    refresh();
    return line;
  }

  function remove(line) {
    if (lines.length === 1) {
      tell("script-status", "A script has at least one line.", true);
      return;
    }
    const place = lines.indexOf(line);
    lines = lines.filter((other) => other !== line);
    line.item.remove();
    refresh();
    // The button goes with the line; the focus would go with it.
    lines[Math.min(place, lines.length - 1)].field("text").focus();
  }

  // Shows which lines have their sound, and offers the whole where all have.
  function refresh() {
    const own = lexicon();
    lines.forEach((line, at) => line.show(at + 1, own, rate));
    const isWhole = lines.every((line) => line.isMade(own));
    part("download-script").hidden = !isWhole;
    if (!isWhole) return;
    const names = [...new Set(lines.map((line) => line.request.voice))].join(", ");
    const seeds = [...new Set(lines.map((line) => line.request.seed))].join(", ");
    const whole = join(lines.map((line) => line.samples(rate)));
    offer("download-script", whole, rate, { ...maker, voice: names, seed: seeds });
  }

  // Sounds of lines, one after the other, as the server makes them: one event has one line.
  async function* make(response, count) {
    const reader = new SampleReader();
    let made = 0;
    for await (const event of api.events(response.body)) {
      if (event.type !== "speech.audio.delta") continue;
      made += 1;
      if (made > count) break;
      yield reader.read(api.bytes(event.audio));
    }
    if (made !== count) throw new Error("The server has not sent one piece of speech for each line.");
  }

  async function speakLines(wanted, signal) {
    const own = lexicon();
    const missing = wanted.filter((line) => !line.isMade(own));
    const sources = missing.map((line) => line.source(own));
    const texts = wanted.map((line) => `${line.request.voice}: ${line.request.text}`);
    const playback = openPlayback(texts.join("\n"));
    let sounds = null;
    if (missing.length) {
      const request = { input: missing.map((line) => line.request), lexicon: own };
      const response = await api.speak(request, signal);
      const isOther = rate && rate !== api.sampleRate(response);
      rate = api.sampleRate(response);
      if (isOther) {
        lines.forEach((line) => line.forget());
        refresh();
        throw new Error("The server has another bundle now: speak the script again.");
      }
      maker = api.provenance(response);
      sounds = make(response, missing.length);
    }
    await playback.begin(rate);
    let place = 0;
    for (const [at, line] of wanted.entries()) {
      const made = missing.indexOf(line);
      if (made >= 0) {
        line.keep((await sounds.next()).value, sources[made]);
        refresh();
      }
      if (!playback.seconds) tell("script-status", "Speaking…");
      const end = place + [...texts[at]].length;
      playback.addWords([{ start_seconds: playback.seconds, text_start: place, text_end: end }]);
      place = end + 1;
      playback.push(line.samples(rate));
    }
    // The last event says that the speech is complete.
    await sounds?.next();
    playback.complete(maker);
    await playback.heard(signal);
    const made = `${missing.length} of ${wanted.length} lines made`;
    tell("script-status", `Done: ${made}, ${wanted.length - missing.length} kept.`);
  }

  function speak(wanted, prepare = () => {}) {
    if (!wanted.every((line) => line.isValid())) return;
    perform("script-status", (signal) => {
      prepare();
      return speakLines(wanted, signal);
    });
  }

  part("script-form").addEventListener("submit", (event) => {
    event.preventDefault();
    speak([...lines]);
  });
  part("script-form").addEventListener("change", refresh);
  part("lexicon").addEventListener("change", refresh);
  part("add-line").addEventListener("click", () => add().field("text").focus());
  TEXTS.forEach(add);

  return (found) => {
    voices = found;
    lines.forEach((line, at) => {
      const chosen = line.field("voice").value || voices[at % Math.max(1, voices.length)]?.id;
      fillVoices(line, chosen);
    });
    refresh();
  };
}
