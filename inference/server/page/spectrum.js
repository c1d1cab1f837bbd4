// The mel spectrogram of a waveform that grows.

const SIZE = 1024;
const NUM_MELS = 80;
const MAX_HERTZ = 8000;
const FLOOR = 1e-5;

const toMel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
const toHertz = (mel) => 700 * (10 ** (mel / 2595) - 1);

// Energies of SIZE/2 + 1 bins of a windowed piece of sound, in place of an FFT library.
class Fourier {
  #real = new Float64Array(SIZE);
  #imaginary = new Float64Array(SIZE);
  #window = Float64Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  #order = Uint16Array.from({ length: SIZE }, (_, i) => {
    let turned = 0;
    for (let bit = 1; bit < SIZE; bit <<= 1) turned = (turned << 1) | (i & bit ? 1 : 0);
    return turned;
  });

  energies(samples, start) {
    const real = this.#real;
    const imaginary = this.#imaginary;
    imaginary.fill(0);
    for (let i = 0; i < SIZE; i += 1) real[this.#order[i]] = samples[start + i] * this.#window[i];
    for (let half = 1; half < SIZE; half *= 2) {
      for (let k = 0; k < half; k += 1) {
        const angle = (-Math.PI * k) / half;
        const c = Math.cos(angle);
        const s = Math.sin(angle);
        for (let i = k; i < SIZE; i += 2 * half) {
          const j = i + half;
          const re = real[j] * c - imaginary[j] * s;
          const im = real[j] * s + imaginary[j] * c;
          real[j] = real[i] - re;
          imaginary[j] = imaginary[i] - im;
          real[i] += re;
          imaginary[i] += im;
        }
      }
    }
    const found = new Float64Array(SIZE / 2 + 1);
    for (let i = 0; i < found.length; i += 1) found[i] = Math.hypot(real[i], imaginary[i]);
    return found;
  }
}

function filters(sampleRate) {
  const top = toMel(Math.min(MAX_HERTZ, sampleRate / 2));
  const edges = Array.from({ length: NUM_MELS + 2 }, (_, i) => toHertz((top * i) / (NUM_MELS + 1)));
  return Array.from({ length: NUM_MELS }, (_, band) => {
    const [low, middle, high] = edges.slice(band, band + 3);
    const weights = [];
    for (let bin = 0; bin <= SIZE / 2; bin += 1) {
      const hertz = (bin * sampleRate) / SIZE;
      const weight = Math.min((hertz - low) / (middle - low), (high - hertz) / (high - middle));
      if (weight > 0) weights.push([bin, weight]);
    }
    return weights;
  });
}

export class MelSpectrogram {
  #fourier = new Fourier();
  #filters;
  #hop;
  #rest = new Float32Array(SIZE / 2);

  constructor(sampleRate) {
    this.#filters = filters(sampleRate);
    this.#hop = Math.round(sampleRate / 100);
  }

  // Columns that are complete after these samples: 100 per second, natural logarithms.
  push(samples) {
    const known = new Float32Array(this.#rest.length + samples.length);
    known.set(this.#rest);
    known.set(samples, this.#rest.length);
    const columns = [];
    let start = 0;
    for (; start + SIZE <= known.length; start += this.#hop) {
      const energies = this.#fourier.energies(known, start);
      const sum = (band) => band.reduce((total, [bin, weight]) => total + weight * energies[bin], 0);
      columns.push(this.#filters.map((band) => Math.log(Math.max(FLOOR, sum(band)))));
    }
    this.#rest = known.slice(start);
    return columns;
  }
}
