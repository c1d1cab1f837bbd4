// Plays pieces of sound one after the other, as they come.

const LEAD_SECONDS = 0.06;
// For a browser to open its way to the loudspeaker.
const START_MS = 2000;

export class Player {
  #context;
  #next = 0;
  #sources = new Set();
  // When each piece begins, on the clock and in the speech, in seconds.
  #starts = [];
  #length = 0;

  // How often the sound was not there when it was due.
  numDry = 0;

  constructor(sampleRate) {
    // At the rate of the speech, pieces join without a seam.
    this.#context = new AudioContext({ sampleRate });
  }

  // To be called from a key or a click: browsers let no page speak by itself. Where one says no,
  // the sound is not heard, and all else goes on.
  wake() {
    this.#context.resume().catch(() => {});
  }

  push(samples) {
    if (!samples.length) return;
    const context = this.#context;
    const buffer = context.createBuffer(1, samples.length, context.sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    if (this.#next < context.currentTime) {
      if (this.#next > 0) this.numDry += 1;
      this.#next = context.currentTime + LEAD_SECONDS;
    }
    source.start(this.#next);
    this.#starts.push({ clock: this.#next, speech: this.#length });
    this.#next += buffer.duration;
    this.#length += buffer.duration;
    this.#sources.add(source);
    source.onended = () => this.#sources.delete(source);
  }

  // The second of the speech that is heard now; -1 before the first.
  get position() {
    const now = this.#context.currentTime;
    const at = this.#starts.findLastIndex((start) => start.clock <= now);
    if (at < 0) return -1;
    const { clock, speech } = this.#starts[at];
    const end = at + 1 < this.#starts.length ? this.#starts[at + 1].speech : this.#length;
    return Math.min(speech + now - clock, end);
  }

  get isStopped() {
    return this.#context.state === "closed";
  }

  // Resolves when all has been heard, or when nothing can be heard.
  async finished() {
    const end = performance.now() + START_MS;
    while (this.#context.state !== "closed" && this.#next > this.#context.currentTime) {
      if (this.#context.state !== "running" && performance.now() > end) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async stop() {
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    if (this.#context.state !== "closed") await this.#context.close();
  }
}
