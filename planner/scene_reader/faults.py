"""What a model or its server can do wrong, on request, so that the planner's answers to it can be tried."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from planner.config import FaultName
from planner.scene_reader import chat
from planner.scene_reader.response import Response

HANG_S = 86_400.0
"""A hang that has to be told in seconds: longer than anybody waits."""

_PAGE = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
_PROSE = (
    "What a lovely table! I can see quite a few interesting things on it, and it is true that some are red."
)
_UNKNOWN = "the turquoise teapot on the far left"
_CONTRARY = re.compile(r"\b(True|False)\b")


def spoil(fault: FaultName, body: bytes, slow_s: float) -> Response:
    """The answer to the completion request `body`, as `fault` would have it."""
    if fault == "error_500":
        return chat.failure(500, "the model crashed")
    if fault == "html":
        return Response(200, _PAGE, "text/html; charset=utf-8")
    if fault == "hang":
        return replace(chat.complete(body), delay_s=HANG_S)
    if fault == "slow":
        return replace(chat.complete(body), delay_s=slow_s)
    return chat.complete(body, Spoiler(fault) if fault != "none" else None)


@dataclass(frozen=True)
class Spoiler:
    """Changes the text of a reply."""

    fault: FaultName

    def __call__(self, text: str) -> str:
        if self.fault == "prose":
            return _PROSE
        if self.fault == "half_json":
            return '```json\n{"bbox_2d": [120, 80, 1' if "bbox_2d" in text else text[: max(3, len(text) // 2)]
        if self.fault == "wrong":
            text = _CONTRARY.sub(lambda said: "False" if said[0] == "True" else "True", text)
        return self._in_json(text)

    def _in_json(self, text: str) -> str:
        """Changes one field of a reply that has it; leaves the others alone."""
        bare = text.strip().removeprefix("```json").removesuffix("```")
        try:
            value = json.loads(bare)
        except ValueError:
            return text
        if self.fault == "box_outside" and isinstance(value, dict) and "bbox_2d" in value:
            return json.dumps(value | {"bbox_2d": [5000, 5000, 5100, 5100]})
        if self.fault == "unknown_object" and isinstance(value, dict) and "target" in value:
            return json.dumps(value | {"target": _UNKNOWN})
        if self.fault == "unknown_object" and isinstance(value, list):
            return json.dumps([_UNKNOWN])
        if self.fault == "wrong" and isinstance(value, dict) and "bbox_2d" in value:
            return json.dumps(value | {"bbox_2d": [4, 4, 24, 24]})
        return text
