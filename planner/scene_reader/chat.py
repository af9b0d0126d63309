"""The chat-completion format: from a request's body to the words and pictures in it, and back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from planner.scene_reader.response import Response
from planner.scene_reader.tasks import answer
from runtime.jpeg_size import jpeg_size
from runtime.messages import ColorImage
from runtime.recording.pictures import unfolded

MODEL = "scene-reader"
MAX_PICTURE_PX = 4_096
"""Of one side."""
MAX_PIXELS = 4 * 1024 * 1024
"""Of all pictures of a request, two of a full-HD camera. They are decoded and read on the planner's loop."""
_MAX_PARTS = 32
_MAX_CHARS = 20_000
"""Of the question and of who the model is told it is."""
_JPEG_URL = "data:image/jpeg;base64,"


class _Text(BaseModel):
    type: Literal["text"]
    text: str


class _Url(BaseModel):
    url: str


class _Image(BaseModel):
    type: Literal["image_url"]
    image_url: _Url


_Part = Annotated[_Text | _Image, Field(discriminator="type")]


class _Message(BaseModel):
    role: str
    content: str | list[_Part]


class _Request(BaseModel):
    model: str
    messages: list[_Message] = Field(min_length=1, max_length=32)


def models() -> dict[str, Any]:
    """The body of ``GET /v1/models``."""
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "dexrun"}
    return {"object": "list", "data": [model]}


def failure(status: int, message: str) -> Response:
    """An error in OpenAI's format."""
    return Response(status, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}))


def complete(body: bytes, spoil: Callable[[str], str] | None = None) -> Response:
    """Answer a completion request.

    The question is the first user message with pictures or, without any, the first user message: later ones
    ask for it again.
    """
    try:
        request = _Request.model_validate_json(body)
        asked = [each for each in request.messages if each.role == "user"]
        if not asked:
            return failure(400, "no message has the role user")
        text, urls = _split(asked[0].content)
        system = "\n".join(_split(each.content)[0] for each in request.messages if each.role == "system")
        if len(text) + len(system) > _MAX_CHARS:
            return failure(400, f"a question of more than {_MAX_CHARS} characters")
        pictures = _decode_all(urls)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return failure(400, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
    except ValueError as error:
        return failure(400, str(error))
    reply = answer(text, pictures, system)
    return Response(200, json.dumps(_completion(request.model, spoil(reply) if spoil else reply)))


def _split(content: str | list[_Part]) -> tuple[str, list[str]]:
    if isinstance(content, str):
        return content, []
    if len(content) > _MAX_PARTS:
        raise ValueError(f"a message has {len(content)} parts; at most {_MAX_PARTS} are taken")
    texts = [part.text for part in content if isinstance(part, _Text)]
    return "\n".join(texts), [part.image_url.url for part in content if isinstance(part, _Image)]


def _decode_all(urls: list[str]) -> list[ColorImage]:
    """RGB ``[H, W, 3]`` pictures from data URLs, none decoded before all are known to be small enough.

    Raises:
        ValueError: one is not a JPEG data URL, or they are too large.
    """
    jpegs = [_jpeg(url) for url in urls]
    try:
        sizes = [jpeg_size(each) for each in jpegs]
    except ValueError as error:
        raise ValueError(f"a picture cannot be decoded: {error}") from None
    if any(max(size) > MAX_PICTURE_PX for size in sizes):
        raise ValueError(f"a picture is larger than {MAX_PICTURE_PX} pixels")
    if sum(height * width for height, width in sizes) > MAX_PIXELS:
        raise ValueError(f"the pictures have more than {MAX_PIXELS} pixels together")
    return [_decode(each) for each in jpegs]


def _jpeg(url: str) -> bytes:
    if not url.startswith(_JPEG_URL):
        raise ValueError(f"a picture must be a data URL that begins with {_JPEG_URL}")
    try:
        data = base64.b64decode(url[len(_JPEG_URL) :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"a picture is not base64: {error}") from None
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("a picture is not a JPEG")
    return data


def _decode(data: bytes) -> ColorImage:
    import cv2

    return cv2.cvtColor(unfolded(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(np.uint8)


def _completion(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-scene-reader",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
