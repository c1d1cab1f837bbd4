"""Messages of the WebSocket; the tables in docs/serve.md says what they mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from inference.server.errors import ApiError
from inference.server.speech import SpeechSettings


class SessionConfig(SpeechSettings):
    """Settings of the utterances that begin after it."""

    type: Literal["session.config"] = "session.config"
    api_key: str | None = None
    response_format: Literal["pcm"] = "pcm"


class InputText(BaseModel):
    """A piece of the text of an utterance, as short or long as it comes."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input.text"]
    text: str


class InputDone(BaseModel):
    """The text of the utterance is complete."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input.done"]


class SessionClose(BaseModel):
    """Nothing more will come."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["session.close"]


ClientMessage = SessionConfig | InputText | InputDone | SessionClose
_ADAPTER: TypeAdapter[ClientMessage] = TypeAdapter(
    Annotated[ClientMessage, Field(discriminator="type")]
)


def read_message(text: str) -> ClientMessage:
    """Reads a message of a client.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        told = f"{place}: {problem['msg']}" if place else str(problem["msg"])
        raise ApiError(400, f"The message is not understood: {told}.") from error
