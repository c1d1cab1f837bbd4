// The form that makes a voice of a recording, with the consent of the person who speaks in it.

import * as api from "./api.js";
import { Recorder } from "./recorder.js";

const MOST_SECONDS = 15;

// A recording that is made here or chosen as a file. `ids` names its controls.
class Take {
  recording = null;
  #element;
  #ids;
  #tell;
  #recorder = null;
  #isStarting = false;

  constructor(part, ids, tell) {
    this.#element = (name) => part(ids[name]);
    this.#ids = ids;
    this.#tell = tell;
    this.#element("button").addEventListener("click", () => {
      // The browser may still be asking whether the page may hear.
      if (this.#isStarting) return;
      if (this.#recorder) this.#end();
      else this.#begin();
    });
    this.#element("file").addEventListener("change", () => {
      const [file] = this.#element("file").files;
      if (!file) return;
      this.#keep(file, file.name);
      this.#element("state").textContent = "A file is chosen.";
    });
  }

  // Forgets the recording: it is of something else than what is wanted now.
  clear() {
    this.recording = null;
    this.#element("file").value = "";
    this.#element("preview").hidden = true;
    this.#element("state").textContent = "Nothing recorded.";
    this.#element("button").textContent = this.#ids.name;
  }

  focus() {
    this.#element("button").focus();
  }

  #keep(blob, fileName) {
    this.recording = { blob, fileName };
    const preview = this.#element("preview");
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(blob);
    preview.hidden = false;
  }

  async #begin() {
    const begun = new Recorder((level, seconds) => {
      this.#element("level").value = level;
      this.#element("state").textContent = `${seconds.toFixed(1)} s`;
      if (seconds >= MOST_SECONDS) this.#end();
    });
    this.#isStarting = true;
    try {
      await begun.start();
      this.#recorder = begun;
      this.#element("button").textContent = "Stop";
      this.#tell("Recording…");
    } catch (error) {
      const reason = error.message.replace(/\.$/, "");
      this.#tell(`The microphone cannot be used: ${reason}.`, true);
    } finally {
      this.#isStarting = false;
    }
  }

  async #end() {
    const ended = this.#recorder;
    this.#recorder = null;
    if (!ended) return;
    this.#element("button").textContent = "Record again";
    this.#element("level").value = 0;
    this.#element("file").value = "";
    this.#keep(await ended.stop(), "recording.wav");
    this.#tell("Recorded.");
  }
}

// Returns a function that takes what the server asks for before it makes a voice.
export function setUpVoiceForm(part, tell, refresh) {
  const say = (sentence, isBad) => tell("voice-status", sentence, isBad);
  const sample = new Take(
    part,
    { name: "Record", button: "record", file: "file", level: "level", state: "recorded", preview: "preview" },
    say,
  );
  const sentence = new Take(
    part,
    {
      name: "Record the sentence",
      button: "record-sentence",
      file: "sentence-file",
      level: "sentence-level",
      state: "sentence-recorded",
      preview: "sentence-preview",
    },
    say,
  );
  let policy = "recorded";
  let drawn = null;
  let isAdding = false;

  function askForConsent(asked) {
    policy = asked.policy;
    part("consent").hidden = policy === "off";
    part("stated").hidden = policy !== "recorded";
    part("spoken").hidden = policy !== "required";
    part("who").required = policy !== "off";
    part("agreed").required = policy === "recorded";
  }

  function forget(reason) {
    drawn = null;
    sentence.clear();
    part("sentence").textContent = reason;
    part("draw").textContent = "Draw the sentence";
  }

  async function draw() {
    if (!part("who").reportValidity()) return;
    try {
      sentence.clear();
      drawn = await api.drawSentence(part("who").value);
      part("sentence").textContent = drawn.sentence;
      part("draw").textContent = "Draw another one";
      say(`The sentence is to be said and sent within ${Math.round(drawn.expires_in / 60)} minutes.`);
    } catch (error) {
      forget("No sentence is drawn yet.");
      say(error.message, true);
    }
  }

  // What is missing, and where it is to be had; null where nothing is.
  function missing() {
    if (!sample.recording) return { sentence: "Record something or choose a file first.", at: sample };
    if (policy !== "required") return null;
    if (!drawn) return { sentence: "Draw the sentence of consent first.", at: part("draw") };
    if (!sentence.recording) return { sentence: "Record the sentence of consent first.", at: sentence };
    return null;
  }

  function consent() {
    const who = part("who").value;
    if (policy === "off") return null;
    if (policy === "required") return { who: drawn.who, id: drawn.id };
    return { who, statement: part("statement").textContent.trim() };
  }

  async function add() {
    if (isAdding) return;
    const gap = missing();
    if (gap) {
      say(gap.sentence, true);
      gap.at.focus();
      return;
    }
    isAdding = true;
    part("add").setAttribute("aria-disabled", "true");
    say("Making the voice…");
    try {
      const voice = await api.addVoice({
        recording: sample.recording,
        name: part("name").value,
        refText: part("ref-text").value,
        consent: consent(),
        spoken: policy === "required" ? sentence.recording : null,
      });
      if (drawn) forget("No sentence is drawn yet.");
      await refresh(voice.id);
      say(`The voice ${voice.name} is ready, and chosen above.`);
    } catch (error) {
      // A sentence that the server has listened to is used up; before that it is not.
      if (drawn && ["consent_refused", "consent_expired"].includes(error.code)) {
        forget("Draw another sentence, and say that one.");
      }
      say(error.message, true);
    } finally {
      isAdding = false;
      part("add").setAttribute("aria-disabled", "false");
    }
  }

  part("draw").addEventListener("click", draw);
  part("who").addEventListener("change", () => {
    if (drawn) forget("The sentence was drawn for another name; draw a new one.");
  });
  part("voice-form").addEventListener("submit", (event) => {
    event.preventDefault();
    add();
  });
  return askForConsent;
}
