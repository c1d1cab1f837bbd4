"""An LLM server as vLLM is one for its clients, with faults on demand.

It serves an exported folder by `transformers`, reads the whole sequence for every token, and draws
with the logits processor of tokenlm (`draws_as_we_do`) or by itself, as an engine without it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from torch import Tensor

from inference.remote.draws import ARGUMENT, DrawOptions, SpeechRows


class FakeLLMServer:
    """Runs while the block does.

    `faults` are taken one a request. After some ids: "die" (the connection breaks), "end" (the
    answer is over without a word), "stall", "garbage", "alien" (an id of text), "wrong" (a class
    that may not be drawn). At once: a status.
    """

    def __init__(
        self, folder: Path, *, draws_as_we_do: bool = True, answers_ids: bool = True
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.rows = SpeechRows(folder)
        self.draws_as_we_do, self.answers_ids = draws_as_we_do, answers_ids
        self.faults: deque[str | int] = deque()
        self.bodies: list[dict[str, Any]] = []
        """Of the requests for speech."""
        self.num_open = 0
        self.num_left = 0
        """Requests whose client has gone before their end."""
        self.seconds_a_token = 0.0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(
            self._app(), port=self.port, log_level="critical", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        end = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < end
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
            self._server = None

    def __enter__(self) -> FakeLLMServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "speech", "object": "model"}]}

        @app.post("/v1/completions")
        async def completions(request: Request) -> Response:
            body = await request.json()
            if body["model"] != "speech":
                return JSONResponse({"message": "no such model"}, 404)
            identifies = 'identify": true' in json.dumps(body).replace("\\", "")
            fault = None
            if not identifies:
                self.bodies.append(body)
                fault = self.faults.popleft() if self.faults else None
            if isinstance(fault, int):
                return JSONResponse({"message": "not now"}, fault, {"Retry-After": "0.05"})
            return StreamingResponse(self._answer(body, fault), media_type="text/event-stream")

        return app

    async def _answer(self, body: dict[str, Any], fault: str | None) -> AsyncIterator[str]:
        ids, new = list(body["prompt"]), []
        options = (body.get("vllm_xargs") or {}).get(ARGUMENT)
        generator = torch.Generator().manual_seed(body.get("seed", 0))
        finish = None
        self.num_open += 1
        try:
            while finish is None:
                if fault is not None and len(new) == 3:
                    if fault == "die":
                        raise ConnectionError("the engine died")
                    if fault == "end":
                        return
                    if fault == "stall":
                        await asyncio.sleep(600)
                    if fault == "garbage":
                        yield "data: <html>\n\n"
                        return
                    wrong = (
                        self.rows.vocabulary.speech_offset + len(self.rows.vocabulary.names()) - 3
                    )
                    yield self._event([7 if fault == "alien" else wrong], None)
                    fault = None
                await asyncio.sleep(self.seconds_a_token)
                token = self._draw(self._logits(ids), new, body, options, generator)
                ids.append(token)
                new.append(token)
                if token in body.get("stop_token_ids", ()):
                    finish = "stop"
                elif len(new) == body["max_tokens"]:
                    finish = "length"
                yield self._event([token], finish)
            yield "data: [DONE]\n\n"
        finally:
            self.num_open -= 1
            self.num_left += finish is None

    @torch.inference_mode()
    def _logits(self, ids: list[int]) -> Tensor:
        return self.model(torch.tensor([ids])).logits[0, -1]

    def _draw(
        self,
        row: Tensor,
        new: list[int],
        body: dict[str, Any],
        options: str | None,
        generator: torch.Generator,
    ) -> int:
        if self.draws_as_we_do and options is not None:
            return int(self.rows.draw(row, new, DrawOptions.from_json(options)).argmax())
        allowed = torch.zeros_like(row, dtype=torch.bool)
        allowed[body.get("allowed_token_ids") or slice(None)] = True
        if len(new) < body.get("min_tokens", 0):
            allowed[body["stop_token_ids"]] = False
        row = row.masked_fill(~allowed, -torch.inf)
        if body["temperature"] == 0:
            return int(row.argmax())
        kept = row.topk(body["top_k"]).indices if body["top_k"] > 0 else torch.arange(len(row))
        shares = (row[kept] / body["temperature"]).softmax(dim=-1)
        return int(kept[torch.multinomial(shares, 1, generator=generator)])

    def _event(self, ids: list[int], finish: str | None) -> str:
        choice = {"index": 0, "text": self.tokenizer.decode(ids), "finish_reason": finish}
        if self.answers_ids:
            choice["token_ids"] = ids
        return f"data: {json.dumps({'choices': [choice]})}\n\n"
