// Samples: out of the bytes of a body, and into a wav file.

// Gives whole 16-bit samples as numbers from -1 to 1; a byte that is left waits for the next piece.
export class SampleReader {
  #rest = new Uint8Array(0);

  read(bytes) {
    const joined = new Uint8Array(this.#rest.length + bytes.length);
    joined.set(this.#rest);
    joined.set(bytes, this.#rest.length);
    const count = joined.length >> 1;
    const view = new DataView(joined.buffer);
    const samples = new Float32Array(count);
    for (let i = 0; i < count; i += 1) samples[i] = view.getInt16(2 * i, true) / 32768;
    this.#rest = joined.slice(2 * count);
    return samples;
  }
}

export function join(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let start = 0;
  for (const piece of pieces) {
    whole.set(piece, start);
    start += piece.length;
  }
  return whole;
}

// What the metadata of synthesised speech say of what made it.
export function synthesisedBy({ by, bundle, voice, seed }) {
  const facts = `bundle ${bundle}, voice ${voice}, seed ${seed}`;
  return `Synthesised speech, not a recording: ${by}, ${facts}`;
}

// A wav file (16 bits, one channel) with a comment in its metadata.
export function wavBlob(samples, sampleRate, comment) {
  let text = new TextEncoder().encode(`${comment}\0`);
  if (text.length % 2) text = new TextEncoder().encode(`${comment}\0\0`);
  const view = new DataView(new ArrayBuffer(64 + text.length + 2 * samples.length));
  let at = 0;
  const word = (letters) => {
    for (const letter of letters) view.setUint8(at++, letter.charCodeAt(0));
  };
  const long = (value) => {
    view.setUint32(at, value, true);
    at += 4;
  };
  const short = (value) => {
    view.setInt16(at, value, true);
    at += 2;
  };
  word("RIFF");
  long(view.byteLength - 8);
  word("WAVEfmt ");
  long(16);
  short(1);
  short(1);
  long(sampleRate);
  long(2 * sampleRate);
  short(2);
  short(16);
  word("LIST");
  long(12 + text.length);
  word("INFOICMT");
  long(text.length);
  for (const byte of text) view.setUint8(at++, byte);
  word("data");
  long(2 * samples.length);
  for (const sample of samples) {
    short(Math.max(-32768, Math.min(32767, Math.round(32768 * sample))));
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}
