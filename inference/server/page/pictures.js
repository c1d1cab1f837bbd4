// Waveform and mel spectrogram, drawn while the sound comes.

const PEAKS_PER_SECOND = 100;
// Of long speech, neighbours are put together: a picture has only so many points, and a browser
// draws on no canvas that is too wide.
const MOST_PEAKS = 4800;
const MOST_COLUMNS = 9600;
const STOPS = [[13, 8, 52], [84, 16, 109], [163, 43, 97], [227, 89, 51], [249, 164, 63], [252, 253, 191]];
const LOWEST = -6;
const HIGHEST = 4;

function colour(value) {
  const place = Math.max(0, Math.min(1, (value - LOWEST) / (HIGHEST - LOWEST))) * (STOPS.length - 1);
  const left = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[left].map((from, i) => from + (place - left) * (STOPS[left + 1][i] - from));
}

export class WavePicture {
  #canvas;
  #size;
  #peaks = [];
  #rest = [];

  constructor(canvas, sampleRate) {
    this.#canvas = canvas;
    this.#size = Math.round(sampleRate / PEAKS_PER_SECOND);
    this.draw();
  }

  push(samples) {
    const known = [...this.#rest, ...samples];
    let start = 0;
    for (; start + this.#size <= known.length; start += this.#size) {
      const piece = known.slice(start, start + this.#size);
      this.#peaks.push([Math.min(...piece), Math.max(...piece)]);
    }
    this.#rest = known.slice(start);
    if (this.#peaks.length > MOST_PEAKS) this.#halve();
    this.draw();
  }

  #halve() {
    const pairs = [];
    for (let i = 0; i < this.#peaks.length; i += 2) {
      const [low, high] = this.#peaks[i];
      const [nextLow, nextHigh] = this.#peaks[i + 1] ?? [low, high];
      pairs.push([Math.min(low, nextLow), Math.max(high, nextHigh)]);
    }
    this.#peaks = pairs;
    this.#size *= 2;
  }

  draw() {
    const { width, height } = this.#canvas;
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(this.#canvas).color;
    const step = Math.min(4, width / Math.max(1, this.#peaks.length));
    this.#peaks.forEach(([low, high], i) => {
      const top = (height / 2) * (1 - high);
      const size = Math.max(1, (height / 2) * (high - low));
      context.fillRect(i * step, top, Math.max(1, step), size);
    });
    context.fillRect(0, height / 2, width, 1);
  }
}

export class MelPicture {
  #canvas;
  #store = document.createElement("canvas");
  #num = 0;
  #every = 1;
  #seen = 0;

  constructor(canvas, numMels) {
    this.#canvas = canvas;
    this.#store.width = 512;
    this.#store.height = numMels;
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }

  push(all) {
    const columns = all.filter((_, i) => (this.#seen + i) % this.#every === 0);
    this.#seen += all.length;
    if (!columns.length) return;
    this.#makeRoom(this.#num + columns.length);
    const context = this.#store.getContext("2d");
    const height = this.#store.height;
    const image = context.createImageData(columns.length, height);
    columns.forEach((column, x) => {
      column.forEach((value, band) => {
        const at = 4 * ((height - 1 - band) * columns.length + x);
        image.data.set([...colour(value), 255], at);
      });
    });
    context.putImageData(image, this.#num, 0);
    this.#num += columns.length;
    if (this.#num > MOST_COLUMNS) this.#halve();
    const { width: wide, height: high } = this.#canvas;
    const target = this.#canvas.getContext("2d");
    const shown = Math.min(wide, 4 * this.#num);
    target.clearRect(0, 0, wide, high);
    target.drawImage(this.#store, 0, 0, this.#num, height, 0, 0, shown, high);
  }

  #halve() {
    const half = Math.floor(this.#num / 2);
    const smaller = document.createElement("canvas");
    smaller.width = MOST_COLUMNS;
    smaller.height = this.#store.height;
    const context = smaller.getContext("2d");
    context.drawImage(this.#store, 0, 0, 2 * half, smaller.height, 0, 0, half, smaller.height);
    this.#store = smaller;
    this.#num = half;
    this.#every *= 2;
  }

  #makeRoom(needed) {
    if (needed <= this.#store.width) return;
    const larger = document.createElement("canvas");
    larger.width = Math.max(needed, 2 * this.#store.width);
    larger.height = this.#store.height;
    larger.getContext("2d").drawImage(this.#store, 0, 0);
    this.#store = larger;
  }
}
