// One piece of speech: played, drawn and timed while it comes.

import { MelPicture, WavePicture } from "./pictures.js";
import { Player } from "./player.js";
import { join, synthesisedBy, wavBlob } from "./samples.js";
import { MelSpectrogram } from "./spectrum.js";
import { WordMarker } from "./words.js";

export class Playback {
  #part;
  #text;
  #rate;
  #player;
  #wave = null;
  #spectrogram = null;
  #mel = null;
  #marker = null;
  #pieces = [];
  #count = 0;
  #begun = performance.now();

  // To be called within the key or click that asks for speech: later, a browser may keep the page
  // silent.
  constructor(part, sampleRate, text) {
    this.#part = part;
    this.#text = text;
    this.#open(sampleRate);
    for (const id of ["first", "length", "total", "factor", "dry"]) this.#show(id, "–");
    part("again").hidden = true;
  }

  #open(sampleRate) {
    this.#rate = sampleRate;
    this.#player = new Player(sampleRate);
    this.#player.wake();
  }

  // The speech is about to come, at the rate that the server says.
  async begin(sampleRate) {
    if (sampleRate !== this.#rate) {
      // Another server, behind the same address, has another bundle.
      await this.#player.stop();
      this.#open(sampleRate);
    }
    this.#wave = new WavePicture(this.#part("wave"), sampleRate);
    this.#spectrogram = new MelSpectrogram(sampleRate);
    this.#mel = new MelPicture(this.#part("mel"), 80);
    this.#marker = new WordMarker(this.#part("said"), this.#text);
    const player = this.#player;
    this.#marker.follow(() => player.position, () => player.isStopped);
  }

  // Seconds of speech so far.
  get seconds() {
    return this.#count / this.#rate;
  }

  push(samples) {
    if (!this.#count) this.#show("first", `${Math.round(performance.now() - this.#begun)} ms`);
    this.#player.push(samples);
    this.#pieces.push(samples);
    this.#count += samples.length;
    this.#wave.push(samples);
    this.#mel.push(this.#spectrogram.push(samples));
    this.#show("length", `${this.seconds.toFixed(2)} s`);
  }

  addWords(words) {
    this.#marker.add(words);
  }

  // Everything has come, and can be heard again; `facts` are those of `api.provenance`.
  complete(facts) {
    const seconds = (performance.now() - this.#begun) / 1000;
    this.#show("total", `${seconds.toFixed(2)} s`);
    this.#show("factor", (seconds / this.seconds).toFixed(2));
    this.#show("wave-told", `${this.seconds.toFixed(1)} seconds of speech: ${this.#text}`);
    const again = this.#part("again");
    if (again.src) URL.revokeObjectURL(again.src);
    again.src = URL.createObjectURL(wavBlob(join(this.#pieces), this.#rate, synthesisedBy(facts)));
    again.hidden = false;
  }

  // Resolves when all has been heard; rejects when it is cancelled.
  async heard(signal) {
    await Promise.race([
      this.#player.finished(),
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
      }),
    ]);
    this.#show("dry", this.#player.numDry === 0 ? "never" : `${this.#player.numDry} times`);
  }

  // Marks the words while it is heard again.
  follow() {
    const audio = this.#part("again");
    this.#marker.follow(() => audio.currentTime, () => audio.paused);
  }

  stop() {
    return this.#player.stop();
  }

  #show(id, text) {
    this.#part(id).textContent = text;
  }
}
