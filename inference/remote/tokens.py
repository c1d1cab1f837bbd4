"""Speech tokens by an LLM server, as they come.

The server holds what `tokenlm export llm` wrote. A request is a list of merged ids and answers ids;
everything else stays here: which tokens may come, when the speech ends, what is tried again, and
the sound. Where tokenlm is installed beside vLLM the server draws as `inference.remote.draws` says,
and a seed says the same as with the LM here, however often the server was asked again. Elsewhere
the engine draws with the seed it is given; speech LMs that need more than that are refused.

One thread with an event loop holds all connections. The worker of a `StreamEngine` takes the ids
that have come, and asks again where an answer has failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from inference.remote.draws import (
    ARGUMENT,
    NUM_IDENTITY_TOKENS,
    DrawOptions,
    identity_tokens,
)
from inference.remote.settings import Remote, RemoteError
from tokenlm.checkpoint.llm_folder import lm_fingerprint
from tokenlm.models.lm.decoding import SamplingConfig, SegmentTokens
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.layout import InputSequence, eos_class
from tokenlm.models.lm.vocabulary import MergedVocabulary
from tokenlm.modules.exact import mix
from tokenlm.synthesis.components import Components

FIRST_DELAY_SECONDS = 0.1
"""Before a failed request is made again; doubled each time."""
MAX_DELAY_SECONDS = 4.0
_RETRIED = (408, 409, 425, 429)
"""Statuses below 500 after which a request is made again."""
_MAX_SEED = (1 << 31) - 1
_NO_ID = -1
"""In place of a text that names no speech token."""

logger = logging.getLogger(__name__)


class _Failure(Exception):
    """A request that may be made again."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class _Server:
    """What is known about the server."""

    model: str
    draws_as_we_do: bool


class _Answer:
    """One request and what has come of it. Written by the event loop, read by the worker."""

    def __init__(self, guarded: list[int], limit: int) -> None:
        self.guarded = guarded
        """Codes that it forbids."""
        self.limit = limit
        """Tokens that it asks for, at most: as many as a block has room for, where there is one."""
        self.num_taken = 0
        self.ids: deque[int] = deque()
        self.finish: str | None = None
        """Why it ended, once it has."""
        self.error: BaseException | None = None
        self.work: Future[None] | None = None

    @property
    def has_news(self) -> bool:
        """Whether there is anything for the worker to do."""
        return bool(self.ids) or self.finish is not None or self.error is not None

    def cancel(self) -> None:
        """Closes the connection, by which the server ends its work."""
        if self.work is not None:
            self.work.cancel()


class RemoteTokens(SegmentTokens):
    """The speech tokens of one segment, drawn by the server and taken in `step`."""

    def __init__(
        self,
        connection: Connection,
        sequence: InputSequence,
        *,
        sampling: SamplingConfig,
        seed: int,
        segment: int,
        forced: Sequence[int] | None,
        guards: GuardConfig,
    ) -> None:
        """Prepares a segment; nothing is sent to the server before `can_step` is asked.

        Args:
            connection: to the server, and the model whose tokens it draws.
            sequence: its text so far; more may be added to it at any time.
            sampling: how tokens are drawn.
            seed: of the whole request for speech.
            segment: number of the segment in it, from 0.
            forced: tokens that replace those that would be drawn; None draws.
            guards: what watches over length and loops.
        """
        super().__init__(
            connection.model,
            sequence,
            sampling=sampling,
            seed=seed,
            segment=segment,
            forced=forced,
            guards=guards,
        )
        self._connection = connection
        self._ids: list[int] = []
        """Merged ids of all positions that were sent."""
        self._answer: _Answer | None = None
        self._failed_at: float | None = None
        """When the first of the failures since the last token was seen."""
        self._num_failures = 0

    @property
    def can_step(self) -> bool:
        """Whether something has come; asks the server for it where that is due."""
        if not super().can_step:
            return False
        if self._forced is not None:
            return True
        if self._answer is None:
            self._ask(0.0)
        return self._answer is not None and self._answer.has_news

    def end(self) -> None:
        """Ends the speech, and the work of the server on it."""
        super().end()
        self._drop()

    def step(self) -> None:
        """Takes what has come.

        Raises:
            RemoteError: the server refuses, or has failed for too long.
        """
        if self._forced is not None:
            self.accept(0)
            return
        answer = self._answer
        if answer is None:
            return
        while answer.ids:
            token = self._connection.vocabulary.speech_class(answer.ids.popleft())
            if token is None or token in set(self.forbidden()):
                named = "an id that is no speech token" if token is None else f"class {token}"
                self._again(_Failure(f"it answered {named}, which it was not to draw"))
                return
            self.accept(token)
            answer.num_taken += 1
            self._failed_at, self._num_failures = None, 0
            is_full = answer.num_taken == answer.limit
            if self.is_done or is_full or self.guarded != answer.guarded:
                self._drop()  # what comes next, if anything, needs another request
                return
        if answer.error is not None:
            self._again(answer.error)
        elif answer.finish == "stop" and eos_class(self.model.config.codebook_size) not in set(
            self.forbidden()
        ):
            self.end()
        elif answer.finish is not None:
            self._again(_Failure(f"it ended ({answer.finish}) where speech must go on"))

    def _ask(self, delay: float) -> None:
        self._ids += self._connection.vocabulary.ids(*self.sequence.take())
        limit = self.sequence.left_in_block or max(self.bounds[1] - len(self.tokens), 1)
        self._answer = answer = _Answer(self.guarded, limit)
        connection = self._connection
        body = partial(self._request, limit)
        answer.work = connection.run(connection.fetch(answer, body, delay))

    def _request(self, limit: int, server: _Server) -> dict[str, Any]:
        """The body of a request for the tokens from here on, `limit` at most."""
        sequence, config = self.sequence, self.model.config
        vocabulary, offset = self._connection.vocabulary, self._connection.vocabulary.speech_offset
        eos, count = eos_class(config.codebook_size), len(self.tokens)
        fewest = max(self.bounds[0] - count, 0) if sequence.is_past_tos else limit
        body = {
            "prompt": self._ids,
            "max_tokens": limit,
            "stop_token_ids": [offset + index for index in vocabulary.end_classes],
        }
        forbidden = {*self.forbidden_specials, *self.guarded}
        if server.draws_as_we_do:
            options = DrawOptions(
                sampling=self.sampling,
                seed=self.seed,
                segment=self.segment,
                step=count,
                eos_from=fewest,
                forbidden=tuple(sorted(forbidden)),
                history=tuple(self.history()),
            )
            return body | {"temperature": 0.0, "vllm_xargs": {ARGUMENT: options.to_json()}}
        if self.sampling.repetition_window:
            raise RemoteError(
                "the LLM server draws by itself, without an eye on repetition: install tokenlm "
                "beside vLLM, or set sampling.repetition_window to 0."
            )
        drawn = range(config.num_classes) if sequence.is_past_tos else range(eos)
        return body | {
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "top_k": self.sampling.top_k or -1,
            "seed": mix(self.seed, self.segment, count, self._num_failures) & _MAX_SEED,
            "min_tokens": fewest if sequence.is_past_tos else 0,
            "allowed_token_ids": [offset + c for c in drawn if c not in forbidden],
        }

    def _again(self, error: BaseException) -> None:
        """Asks again after a failure, from the last good token on."""
        self._drop()
        now = time.monotonic()
        self._failed_at = now if self._failed_at is None else self._failed_at
        limit = self._connection.settings.give_up_seconds
        if not isinstance(error, _Failure):
            raise error
        if now - self._failed_at >= limit:
            raise RemoteError(
                f"the LLM server has failed for {limit:g} s, the last time: {error}."
            ) from error
        delay = min(FIRST_DELAY_SECONDS * 2**self._num_failures, MAX_DELAY_SECONDS)
        self._num_failures += 1
        logger.warning("the LLM server is asked again: %s", error)
        self._ask(min(max(delay, error.retry_after), limit))

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.cancel()


class Connection:
    """All requests to one server; the `TokenServer` of sessions."""

    def __init__(
        self, settings: Remote, components: Components, notify: Callable[[], None]
    ) -> None:
        """Starts the thread; the server is asked for its model by the first request.

        Args:
            settings: where it is.
            components: of the bundle whose speech LM it must have.
            notify: called in another thread when something has come.
        """
        self.settings, self.model = settings, components.speech_lm
        self.vocabulary = MergedVocabulary.of(self.model.config)
        self._bundle = components.folder
        self._notify = notify
        self._identity: list[int] = []
        self._server: asyncio.Task[_Server] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tokenlm-llm", daemon=True
        )
        self._thread.start()
        key = settings.api_key
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(10.0, read=None),
            limits=httpx.Limits(max_connections=None),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def begin(
        self,
        sequence: InputSequence,
        *,
        sampling: SamplingConfig,
        seed: int,
        segment: int,
        forced: Sequence[int] | None,
        guards: GuardConfig,
    ) -> RemoteTokens:
        """The tokens of a segment.

        Raises:
            ValueError: they need what no LLM server does.
        """
        if guards.guidance_scale and forced is None:
            raise ValueError("guidance of the LM is not for LLM servers: set guidance_scale to 0.")
        return RemoteTokens(
            self,
            sequence,
            sampling=sampling,
            seed=seed,
            segment=segment,
            forced=forced,
            guards=guards,
        )

    def step(self, tokens: SegmentTokens) -> None:
        """Takes what has come for a segment that `begin` gave; see `RemoteTokens.step`."""
        assert isinstance(tokens, RemoteTokens)
        tokens.step()

    def close(self) -> None:
        """Ends all requests and the thread."""

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._client.aclose()

        if not self._loop.is_closed():
            self.run(end()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Starts work in the thread of the connections."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def fetch(
        self, answer: _Answer, body: Callable[[_Server], dict[str, Any]], delay: float
    ) -> None:
        """Makes one request after a delay; ids come one by one into `answer`."""
        try:
            await asyncio.sleep(delay)
            server = await self._known_server()
            request = {"model": server.model, "stream": True, "return_token_ids": True}
            await self._stream(request | body(server), answer)
        except asyncio.CancelledError:
            raise
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            self._server = None  # another one may answer next
            reason = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                reason = f"nothing came for {self.settings.stall_seconds:g} s"
            answer.error = _Failure(f"{self.settings.base}: {reason}")
        except Exception as error:
            answer.error = error
        self._notify()

    async def _stream(self, body: dict[str, Any], answer: _Answer) -> None:
        path = f"{self.settings.base}/completions"
        async with self._client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                await response.aread()
                self._refuse(response)
            lines = response.aiter_lines()
            while answer.finish is None:
                async with asyncio.timeout(self.settings.stall_seconds):
                    line = await anext(lines, None)
                if line is None:
                    self._server = None  # another one may answer next
                    raise _Failure("the answer broke off")
                if not line.startswith("data:") or line == "data: [DONE]":
                    continue
                ids, finish = self._read(line.removeprefix("data:"))
                answer.ids.extend(ids)
                answer.finish = finish
                if ids or finish is not None:
                    self._notify()

    def _read(self, data: str) -> tuple[list[int], str | None]:
        """The ids of a piece of an answer, and why it ends."""
        try:
            event = json.loads(data)
            if "error" in event:
                raise _Failure(f"it answered an error: {event['error']}")
            choice = event["choices"][0] if event["choices"] else {}
            ids = choice.get("token_ids")
            if ids is None:
                offset = self.vocabulary.speech_offset
                text = choice.get("text") or ""
                ids = [offset + index for index in self.vocabulary.classes_named(text)]
                if text.strip() and not ids:
                    ids = [_NO_ID]
            return [int(index) for index in ids], choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Failure(f"it answered what is no completion: {data.strip()[:200]}") from error

    def _refuse(self, response: httpx.Response) -> None:
        """Raises what a status other than 200 means."""
        status, text = response.status_code, response.text.strip()[:300]
        sentence = f"{response.url} answered {status}: {text}"
        if status >= 500 or status in _RETRIED:
            try:
                wait = float(response.headers.get("retry-after", 0.0))
            except ValueError:
                wait = 0.0
            raise _Failure(sentence, wait)
        raise RemoteError(sentence)

    async def _known_server(self) -> _Server:
        """The server, which is asked once for all that wait; anew after a connection has failed."""
        if self._server is None:
            self._server = self._loop.create_task(self._identify())
        task = self._server
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            raise
        except BaseException:
            if self._server is task:
                self._server = None
            raise

    async def _identify(self) -> _Server:
        """Asks the server for its model, and whether it draws as we do.

        Raises:
            RemoteError: it has another model, or one that it cannot draw from.
        """
        if not self._identity:
            mark = await asyncio.to_thread(lm_fingerprint, self._bundle)
            self._identity = identity_tokens(mark, self.vocabulary.codebook_size)
        name = self.settings.model or await self._first_model()
        answers = [await self._ask_identity(name, seed) for seed in (1, 2)]
        if answers[0] == self._identity:
            logger.info("%s draws the speech tokens of %s", self.settings.base, name)
            return _Server(name, draws_as_we_do=True)
        # By chance two draws are not equal: the processor is there, and answers for another model.
        if answers[0] and answers[0] == answers[1]:
            raise RemoteError(
                f"{self.settings.base} has another speech LM ({name}) than this bundle: serve what "
                "`tokenlm export llm` writes of it."
            )
        if self.model.config.head_bias:
            raise RemoteError(
                f"the speech LM of this bundle has a bias, which {self.settings.base} does not "
                "add: install tokenlm beside vLLM, whose logits processor does."
            )
        logger.warning(
            "%s draws speech tokens by itself: seeds are those of the engine, and top_p counts "
            "after top_k",
            self.settings.base,
        )
        return _Server(name, draws_as_we_do=False)

    async def _first_model(self) -> str:
        async with asyncio.timeout(self.settings.stall_seconds):
            response = await self._client.get(f"{self.settings.base}/models")
        if response.status_code != 200:
            self._refuse(response)
        try:
            return str(response.json()["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _Failure(f"{response.url} lists no model") from error

    async def _ask_identity(self, name: str, seed: int) -> list[int]:
        """Codes that the server answers when it is asked which model it has."""
        body = {
            "model": name,
            "prompt": [self.vocabulary.sos_id, self.vocabulary.turn_id],
            "max_tokens": NUM_IDENTITY_TOKENS,
            "temperature": 2.0,
            "top_p": 1.0,
            "top_k": -1,
            "seed": seed,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
            "vllm_xargs": {ARGUMENT: DrawOptions(identify=True).to_json()},
        }
        answer = _Answer([], NUM_IDENTITY_TOKENS)
        await self._stream(body, answer)
        return [index - self.vocabulary.speech_offset for index in answer.ids]
