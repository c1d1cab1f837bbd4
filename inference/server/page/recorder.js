// Records the microphone as samples, without a codec between.

import { join, wavBlob } from "./samples.js";

export class Recorder {
  #context;
  #stream;
  #pieces = [];
  #onLevel;

  // `onLevel` is called with the level from 0 to 1 and the seconds so far.
  constructor(onLevel) {
    this.#onLevel = onLevel;
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("A browser lets only pages from https or from this computer record.");
    }
    this.#stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, autoGainControl: false, noiseSuppression: false },
    });
    try {
      await this.#listen();
    } catch (error) {
      // A microphone that is not used is let go.
      for (const track of this.#stream.getTracks()) track.stop();
      throw error;
    }
  }

  async #listen() {
    this.#context = new AudioContext();
    await this.#context.audioWorklet.addModule("recorder_worklet.js");
    const node = new AudioWorkletNode(this.#context, "collector", { numberOfOutputs: 0 });
    let count = 0;
    node.port.onmessage = ({ data }) => {
      this.#pieces.push(data);
      count += data.length;
      const peak = data.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      this.#onLevel(peak, count / this.#context.sampleRate);
    };
    this.#context.createMediaStreamSource(this.#stream).connect(node);
  }

  // The recording as a wav file.
  async stop() {
    const rate = this.#context.sampleRate;
    for (const track of this.#stream.getTracks()) track.stop();
    await this.#context.close();
    return wavBlob(join(this.#pieces), rate, "Recorded on the page of a tokenlm server");
  }
}
