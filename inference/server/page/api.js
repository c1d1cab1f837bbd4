// What the page asks of the server.

let key = "";

export function setKey(text) {
  key = text.trim();
}

function headers(more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

// An answer of the server, whatever its status.
async function ask(path, options = {}) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it running?");
  }
}

async function checked(response) {
  if (response.ok) return response;
  const failure = new Error(`The server answered with status ${response.status}.`);
  try {
    const { message, code } = (await response.json()).error;
    Object.assign(failure, { message, code });
  } catch {
    // The answer came from something before the server; the status has to do.
  }
  throw failure;
}

export async function health() {
  return (await ask("health")).json();
}

export async function model() {
  const response = await checked(await ask("v1/models", { headers: headers() }));
  return (await response.json()).data[0];
}

// All voices, up to `most` of them, and whether there are more.
export async function voices(most) {
  const found = [];
  let more = true;
  while (more && found.length < most) {
    const query = new URLSearchParams({ limit: "500" });
    if (found.length) query.set("after", found[found.length - 1].id);
    const response = await ask(`v1/audio/voices?${query}`, { headers: headers() });
    const page = await (await checked(response)).json();
    found.push(...page.data);
    more = page.has_more;
  }
  return { found, more };
}

// A response whose body is events, as the speech is made: signed 16-bit samples, and words.
export async function speak(request, signal) {
  const body = JSON.stringify({ ...request, response_format: "pcm", stream_format: "sse" });
  const kind = headers({ "Content-Type": "application/json" });
  return checked(await ask("v1/audio/speech", { method: "POST", headers: kind, body, signal }));
}

// Samples per second of such a response.
export function sampleRate(response) {
  return Number(response.headers.get("X-Sample-Rate"));
}

// What made it.
export function provenance(response) {
  const fact = (name) => decodeURIComponent(response.headers.get(`X-Tokenlm-${name}`) ?? "");
  const by = response.headers.get("X-Synthesised");
  return { by, bundle: fact("Bundle"), voice: fact("Voice"), seed: fact("Seed") };
}

// The events of a body, up to the one that ends the speech.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const broken = new Error("The speech broke off: the server has ended the connection.");
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : broken;
    }
    if (piece.done) throw broken;
    const found = (rest + piece.value).split("\n\n");
    rest = found.pop();
    for (const event of found) {
      const fields = JSON.parse(event.slice("data: ".length));
      if (fields.type === "error") throw new Error(fields.error.message);
      if (fields.type === "speech.audio.done") return;
      yield fields;
    }
  }
}

// Bytes that are written in base 64.
export function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// What is asked for before a voice is made: "required", "recorded" or "off".
export async function consentPolicy() {
  return (await checked(await ask("v1/audio/voice_consents", { headers: headers() }))).json();
}

// A sentence that the person whose voice it is says, once and soon.
export async function drawSentence(who) {
  const kind = headers({ "Content-Type": "application/json" });
  const options = { method: "POST", headers: kind, body: JSON.stringify({ who }) };
  return (await checked(await ask("v1/audio/voice_consents", options))).json();
}

// `consent` is what was agreed to; `spoken` the recording of a sentence that was drawn, if one was.
export async function addVoice({ recording, name, refText, consent, spoken }) {
  const form = new FormData();
  form.append("audio_sample", recording.blob, recording.fileName);
  form.append("name", name);
  form.append("ref_text", refText);
  if (consent) form.append("consent", JSON.stringify(consent));
  if (spoken) form.append("consent_recording", spoken.blob, spoken.fileName);
  const options = { method: "POST", headers: headers(), body: form };
  return (await checked(await ask("v1/audio/voices", options))).json();
}

export async function deleteVoice(id) {
  const options = { method: "DELETE", headers: headers() };
  await checked(await ask(`v1/audio/voices/${encodeURIComponent(id)}`, options));
}
