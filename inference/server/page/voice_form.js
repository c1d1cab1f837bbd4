// The form that makes a voice of a recording.

import * as api from "./api.js";
import { Recorder } from "./recorder.js";

const MOST_SECONDS = 15;

export function setUpVoiceForm(part, tell, refresh) {
  let recorder = null;
  let recording = null;
  let isStarting = false;
  let isAdding = false;

  function keep(blob, fileName) {
    recording = { blob, fileName };
    if (part("preview").src) URL.revokeObjectURL(part("preview").src);
    part("preview").src = URL.createObjectURL(blob);
    part("preview").hidden = false;
  }

  async function begin() {
    const begun = new Recorder((level, seconds) => {
      part("level").value = level;
      part("recorded").textContent = `${seconds.toFixed(1)} s`;
      if (seconds >= MOST_SECONDS) end();
    });
    isStarting = true;
    try {
      await begun.start();
      recorder = begun;
      part("record").textContent = "Stop";
      tell("voice-status", "Recording…");
    } catch (error) {
      const reason = error.message.replace(/\.$/, "");
      tell("voice-status", `The microphone cannot be used: ${reason}.`, true);
    } finally {
      isStarting = false;
    }
  }

  async function end() {
    const ended = recorder;
    recorder = null;
    if (!ended) return;
    part("record").textContent = "Record again";
    part("level").value = 0;
    part("file").value = "";
    keep(await ended.stop(), "recording.wav");
    tell("voice-status", "Recorded.");
  }

  async function add() {
    if (isAdding) return;
    if (!recording) {
      tell("voice-status", "Record something or choose a file first.", true);
      part("record").focus();
      return;
    }
    isAdding = true;
    part("add").setAttribute("aria-disabled", "true");
    tell("voice-status", "Making the voice…");
    try {
      const voice = await api.addVoice({
        recording: recording.blob,
        fileName: recording.fileName,
        name: part("name").value,
        refText: part("ref-text").value,
        who: part("who").value,
        statement: part("statement").textContent.trim(),
      });
      await refresh(voice.id);
      tell("voice-status", `The voice ${voice.name} is ready, and chosen above.`);
    } catch (error) {
      tell("voice-status", error.message, true);
    } finally {
      isAdding = false;
      part("add").setAttribute("aria-disabled", "false");
    }
  }

  part("record").addEventListener("click", () => {
    // The browser may still be asking whether the page may hear.
    if (isStarting) return;
    if (recorder) end();
    else begin();
  });
  part("file").addEventListener("change", () => {
    const [file] = part("file").files;
    if (file) {
      keep(file, file.name);
      part("recorded").textContent = "A file is chosen.";
    }
  });
  part("voice-form").addEventListener("submit", (event) => {
    event.preventDefault();
    add();
  });
}
