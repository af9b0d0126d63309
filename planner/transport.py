"""One HTTP exchange with an OpenAI-compatible server, and what can go wrong in it, by kind."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from loguru import logger

from planner.completion import Completion, ErrorWithinError, FailedExchange, message_in, read
from planner.config import PlannerConfig
from planner.retry_after import asked_to_wait_s
from runtime.addresses import is_loopback
from runtime.masking import masked

SIMULATED_TIME_HEADER = "x-dexrun-simulated-time"
"""Request: simulated time stands still meanwhile, so tell a delay instead of taking it."""
SIMULATED_LATENCY_HEADER = "x-dexrun-simulated-latency-s"
"""Response: how much later than usual this would have come."""

_RETRIED = frozenset({408, 409, 425, 429})
_ADAPTATIONS = 3
"""Times that a request is changed to what a server takes."""
_NO_MODEL = re.compile(r"\bmodel\b.{0,200}(?:not found|not exist|unknown|not loaded|invalid)", re.I | re.S)
_OTHER_SERVERS_TAKE = {"max_completion_tokens": "max_tokens", "temperature": ""}
"""What some servers refuse, and what they take in its place."""

_NO_SYSTEM = re.compile(
    r"\bsystem (?:role|messages?|prompts?)\b.{0,40}\bnot\b|roles must alternate|only user and assistant role",
    re.IGNORECASE | re.DOTALL,
)
"""As servers say whose model's chat template knows no such role: Gemma's, Mistral's first ones."""

Message = dict[str, Any]


class Transport:
    """Owns the client; all its methods run on the planner's background loop."""

    def __init__(self, config: PlannerConfig, base_url: str, api_key: str, *, simulated: bool) -> None:
        self._config = config
        self.base_url = base_url
        self._secret = api_key.strip()  # a key read from a file often ends in a newline
        self._headers = {SIMULATED_TIME_HEADER: "1"} if simulated else {}
        self._sampling: dict[str, Any] = {"max_completion_tokens": config.max_completion_tokens}
        if config.temperature != "default":
            self._sampling["temperature"] = config.temperature
        self._listed = ""
        self._has_system = True
        self._client: Any = None
        self.model = config.model

    async def open(self) -> None:
        """Import the library and build the client (about half a second the first time)."""
        import openai

        from planner.bounded import BoundedClient

        # A proxy of the environment's is on its way elsewhere: it does not lead back to this machine.
        local = is_loopback(urlsplit(self.base_url).hostname or "")
        http = BoundedClient(trust_env=not local)
        self._client = openai.AsyncOpenAI(
            api_key=self._secret or "none",
            base_url=self.base_url,
            timeout=self._config.timeout_s,
            max_retries=0,
            http_client=http,
        )
        _ = self._client.chat.completions.with_raw_response.create  # imports what the first call would

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()

    async def ask(self, messages: Sequence[Message], limit_s: float) -> Completion | FailedExchange:
        """Send `messages`, wait for at most `limit_s` of wall time."""
        import openai

        from planner.bounded import RedirectedError

        try:
            async with asyncio.timeout(limit_s):
                return await self._ask(messages)
        except (TimeoutError, openai.APITimeoutError):
            return FailedExchange("timeout", f"no answer within {limit_s:.1f} s", again=True)
        except openai.APIConnectionError as error:
            return self._unreachable(error)
        except RedirectedError as error:
            return FailedExchange("redirected", self._redact(str(error)), again=False)
        except openai.APIStatusError as error:
            answer = error.response
            return self._status(error.status_code, answer.headers, error.message, answer.text)
        except ErrorWithinError as error:
            return self._error_within(error)
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            return FailedExchange(
                "malformed", f"not a chat completion: {self._redact(str(error))}", again=False
            )

    async def _ask(self, messages: Sequence[Message]) -> Completion | FailedExchange:
        import openai

        for _ in range(_ADAPTATIONS):
            try:
                return await self._complete(messages)
            except openai.APIStatusError as error:
                if not await self._adapted(error.status_code, error.response.text):
                    raise
            except ErrorWithinError as error:
                if not await self._adapted(error.status or 400, str(error)):
                    raise
        return await self._complete(messages)

    async def _complete(self, messages: Sequence[Message]) -> Completion | FailedExchange:
        if self.model is None:
            listed = await self._models()
            if isinstance(listed, FailedExchange):
                return listed
            self.model = listed[0]
        raw = await self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=list(messages) if self._has_system else _without_system(messages),
            stream=False,
            extra_headers=self._headers,
            **self._sampling,
        )
        later = _seconds(raw.headers.get(SIMULATED_LATENCY_HEADER))
        kind = raw.headers.get("content-type", "nothing").split(";")[0]
        if not kind.strip().lower().endswith("json") and not raw.content.lstrip().startswith(b"{"):
            detail = f"the server answered with {kind}, not a chat completion"
            return FailedExchange("malformed", detail, again=False, extra_latency_s=later)
        try:
            answer = read(raw.content, later)
        except ErrorWithinError as error:
            error.headers, error.body = raw.headers, raw.text
            raise
        if isinstance(answer, FailedExchange):
            return replace(answer, detail=self._redact(answer.detail))
        return answer

    async def _adapted(self, status: int, message: str) -> bool:
        """Whether something of the request was changed that the server does not take."""
        self._listed = ""
        if status == 404 or (status == 400 and _NO_MODEL.search(message[:2000])):
            return await self._other_model()
        if status not in (400, 422, 500):
            return False
        if self._has_system and _NO_SYSTEM.search(message[:2000]):
            self._has_system = False
            logger.info("planner: the server at {} takes no system message", masked(self.base_url))
            return True
        if status == 500:
            return False
        for name, instead in _OTHER_SERVERS_TAKE.items():
            if name in self._sampling and re.search(rf"\b{name}\b", message):
                value = self._sampling.pop(name)
                if instead:
                    self._sampling[instead] = value
                said = f"takes no {name}; it gets {instead or 'none'}"
                logger.info("planner: the server at {} {}", masked(self.base_url), said)
                return True
        return False

    async def _other_model(self) -> bool:
        """Whether the server has one model only, by another name, which is asked from now on."""
        import openai

        try:
            listed = await self._models()
        except openai.OpenAIError:
            listed = []
        if isinstance(listed, FailedExchange) or not listed:
            self._listed = (
                "; it lists no models either: does planner.base_url end where its API begins (/v1)?"
            )
            return False
        if self.model in listed:
            return False
        self._listed = f"; it lists {', '.join(listed[:5])}: name one with planner.model"
        if len(listed) > 1 and self._config.model is not None:
            return False
        named = self._redact(listed[0])
        logger.warning(
            "planner: the server does not know the model {!r} (any more); asking {!r}", self.model, named
        )
        self.model = listed[0]
        return True

    async def _models(self) -> list[str] | FailedExchange:
        """The names that the server lists, at least one."""
        raw = await self._client.models.with_raw_response.list()
        try:
            page = json.loads(raw.content)
        except (ValueError, RecursionError):
            page = None
        match page:
            case {"data": [{"id": str(name)}, *more]} if name:
                rest = [each.get("id") for each in more if isinstance(each, dict)]
                return [name, *(each for each in rest if isinstance(each, str) and each)]
            case {"data": []}:
                detail = "the server lists no model; name one with planner.model"
            case _:
                kind = raw.headers.get("content-type", "nothing").split(";")[0]
                detail = f"{self.base_url.rstrip('/')}/models answered with {kind} that is no list of models"
        return FailedExchange("malformed", self._redact(detail), again=False)

    def _unreachable(self, error: Exception) -> FailedExchange:
        """Why no connection came about; a host that nobody knows will not be known in a second."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, socket.gaierror):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            return FailedExchange("unreachable", self._redact(str(error.__cause__ or error)), again=True)
        host = urlsplit(self.base_url).hostname
        detail = self._redact(f"host {host!r} is not known: {cause.strerror}")
        return FailedExchange("unknown_host", detail, again=cause.errno == socket.EAI_AGAIN)

    def _error_within(self, error: ErrorWithinError) -> FailedExchange:
        """An error that came as an answer: treated as its status says, or else as what cannot be used."""
        if error.status:
            return self._status(error.status, error.headers, str(error), error.body)
        return FailedExchange("malformed", self._redact(f"the server reports an error: {error}"), again=False)

    def _status(self, status: int, headers: Any, message: str, body: str) -> FailedExchange:
        if message == f"Error code: {status}":  # the library reads one form of errors only
            message = ": ".join(filter(None, (message, _said(body))))
        return FailedExchange(
            f"http_{status}",
            self._redact(message) + (self._redact(self._listed) if status in (400, 404) else ""),
            again=status in _RETRIED or status >= 500,
            wait_s=asked_to_wait_s(headers, body),
            extra_latency_s=_seconds(headers.get(SIMULATED_LATENCY_HEADER)),
        )

    def _redact(self, text: str) -> str:
        """`text` as one line of at most 300 characters, without the key or a URL's credentials.

        The key is taken out before anything is cut or joined, as it is and as an error's `repr` writes it.
        """
        for secret in {self._secret, ascii(self._secret)[1:-1]} - {""}:
            text = text.replace(secret, "***")
        return masked(" ".join(text.split()))[:300]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The system message's text as the beginning of the first question."""
    system, first, *rest = messages
    text, *pictures = first["content"]
    said = {**text, "text": f"{system['content']}\n\n{text['text']}"}
    return [{**first, "content": [said, *pictures]}, *rest]


def _said(body: str) -> str:
    """What the body of a refusal says: a JSON error of any form, or plain text; nothing of a web page."""
    try:
        return message_in(json.loads(body))
    except (ValueError, RecursionError):
        return "" if body.lstrip().startswith(("<", "{", "[")) else body.strip()


def _seconds(header: str | None) -> float:
    """A header in seconds; 0 for none and for what is not a number."""
    try:
        value = float(header or 0.0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
