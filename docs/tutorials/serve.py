# %% [markdown]
# # Serve
#
# Starts the server with the embedded bundle, asks it for speech in three ways, and stops it. It
# needs the extra `serve`.

# %%
import json
import signal
import socket
import subprocess
import sys
import time
from urllib.request import Request, urlopen

with socket.socket() as free:  # any free port
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
address = f"http://127.0.0.1:{port}"

command = ["serve", "--bundle", "mini-en", "--port", str(port), "--voices", "voices"]
server = subprocess.Popen([sys.executable, "-m", "tokenlm", *command])

# %% [markdown]
# In a shell that is `tokenlm serve`, with the page to try it at http://127.0.0.1:8000. The
# server is ready when `/health` says so.


# %%
def is_healthy():
    """Whether the server answers, and its models speak."""
    try:
        return urlopen(f"{address}/health", timeout=5).status == 200
    except OSError:
        return False


while not is_healthy():
    assert server.poll() is None, "the server has ended"
    time.sleep(0.5)

# %% [markdown]
# ## A file over HTTP
#
# The API is that of OpenAI, so its clients work with `base_url` set to the address and `/v1`.
# Here the standard library is enough.

# %%
speech = {"input": "Hello from the server.", "voice": "slt", "response_format": "wav"}
request = Request(
    f"{address}/v1/audio/speech",
    data=json.dumps(speech).encode(),
    headers={"Content-Type": "application/json"},
)
with urlopen(request) as response, open("hello.wav", "wb") as file:
    print(response.headers["X-Tokenlm-Voice"], response.headers["X-Tokenlm-Seed"])
    file.write(response.read())

# %% [markdown]
# ## Sound while it is being made
#
# With `pcm` the bytes are samples, 16 bits, little-endian. They come while the rest is being
# made.

# %%
speech = {"input": "Sound comes while the rest is being made.", "response_format": "pcm"}
request = Request(
    f"{address}/v1/audio/speech",
    data=json.dumps(speech).encode(),
    headers={"Content-Type": "application/json"},
)
with urlopen(request) as response:
    rate = int(response.headers["X-Sample-Rate"])
    sizes = []
    while piece := response.read1(65536):
        sizes.append(len(piece))
print(f"{sum(sizes) / 2 / rate:.2f} seconds in {len(sizes)} pieces")
assert sum(sizes) > rate

# %% [markdown]
# ## Text that is still being written, over a WebSocket
#
# Messages are JSON with a `type`; audio is binary. Speech begins before the text is complete.

# %%
from websockets.sync.client import connect

with connect(f"ws://127.0.0.1:{port}/v1/audio/speech/stream") as websocket:
    websocket.send(json.dumps({"type": "session.config", "voice": "slt", "seed": 1}))
    for piece in ["This was ", "written ", "word by ", "word."]:
        websocket.send(json.dumps({"type": "input.text", "text": piece}))
    websocket.send(json.dumps({"type": "input.done"}))
    websocket.send(json.dumps({"type": "session.close"}))
    num_bytes = 0
    for message in websocket:
        if isinstance(message, bytes):
            num_bytes += len(message)
            continue
        event = json.loads(message)
        print(event["type"])
        assert event["type"] != "error", event
assert num_bytes > 0

# %% [markdown]
# ## Stop
#
# On a signal the server takes no new requests, finishes what is being spoken, and ends.

# %%
server.send_signal(signal.SIGTERM)
print("ended with", server.wait(timeout=120))

# %% [markdown]
# Settings, voices, limits, proxies and several GPUs are on the page [Serve](../serve.md).
