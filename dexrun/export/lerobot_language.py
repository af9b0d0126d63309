"""LeRobot's language columns: what is done when, and what is where, in words beside the frames.

Rows and Arrow types as LeRobot's ``lerobot.datasets.language`` and its documentation "Language columns and
recipes" (after release 0.4.4) have them: ``language_persistent`` holds, on every frame alike, what counts
from a time on until another of its style follows; ``language_events`` what is said of just this frame. A
sub-step is a persistent row of style ``subtask``; a box that was given to an object's mask is a question and
an answer of style ``vqa``, on the frame that the box was seen in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.data.annotated import annotated_substeps
from policies.data.lerobot_features import LANGUAGE
from policies.data.sampled import Sampled
from runtime.recording.annotations import Annotation

PERSISTENT, EVENTS = LANGUAGE, "language_events"
COLUMNS = (PERSISTENT, EVENTS)
FEATURE: dict[str, Any] = {"dtype": "language", "shape": [1], "names": None}

Said = dict[str, Any]
"""A row of a language column."""


def languages(sampled: Sampled, images: str, fps: int) -> dict[str, list[list[Said]]]:
    """Both columns of one episode, a list of rows for each frame.

    Args:
        sampled: the episode's rows.
        images: what a camera's feature is called, before its name.
        fps: frame rate of the data set, whose time stamps persistent rows have.
    """
    persistent = _subtasks(sampled, fps)
    events: list[list[Said]] = [[] for _ in range(len(sampled))]
    for camera in sorted(sampled.ref.annotated):
        annotation = sampled.recording.annotation(camera)
        if annotation is not None and camera in sampled.frames:
            for frame, said in _boxes(annotation, f"{images}{camera}"):
                shown = np.flatnonzero(sampled.frames[camera] == frame)
                if len(shown):
                    events[int(shown[0])] += said
    return {PERSISTENT: [persistent] * len(sampled), EVENTS: events}


def _subtasks(sampled: Sampled, fps: int) -> list[Said]:
    known = annotated_substeps(sampled.ref, sampled.recording)
    places = np.searchsorted(np.array([stamp for stamp, _ in known], np.int64), sampled.observed, "right")
    begins = np.flatnonzero(np.diff(places, prepend=0))
    return [
        {
            **_said("assistant", known[places[row] - 1][1], "subtask"),
            "timestamp": float(np.float32(row / fps)),
        }
        for row in begins.tolist()
    ]


def _boxes(annotation: Annotation, feature: str) -> list[tuple[int, list[Said]]]:
    """By frame, who asked where something is and what was said."""
    found = []
    for each in annotation.anchors:
        if each.box is not None:
            box = {"label": each.phrase, "bbox_format": "xyxy", "bbox": [round(edge, 1) for edge in each.box]}
            question = _said("user", f"Where is this: {each.phrase}?", "vqa", feature)
            answer = _said("assistant", json.dumps({"detections": [box]}), "vqa", feature)
            found.append((each.frame, [question, answer]))
    return found


def _said(role: str, content: str, style: str, camera: str | None = None) -> Said:
    return {"role": role, "content": content, "style": style, "camera": camera, "tool_calls": None}


def arrow_type(column: str) -> Any:
    """Arrow's type of one frame's rows; tool calls, of which there are none here, are JSON in text."""
    import pyarrow as pa

    fields = [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("style", pa.string()),
        *([pa.field("timestamp", pa.float32(), nullable=False)] if column == PERSISTENT else []),
        pa.field("camera", pa.string()),
        pa.field("tool_calls", pa.list_(pa.string())),
    ]
    return pa.list_(pa.struct(fields))


def described(column: str) -> dict[str, Any]:
    """The column as `datasets` describes it."""
    text = {"dtype": "string", "_type": "Value"}
    row: dict[str, Any] = {"role": text, "content": text, "style": text}
    if column == PERSISTENT:
        row["timestamp"] = {"dtype": "float32", "_type": "Value"}
    row |= {"camera": text, "tool_calls": {"feature": text, "_type": "List"}}
    return {"feature": row, "_type": "List"}


def array(rows: Sequence[Sequence[Said]], column: str) -> Any:
    """Arrow's array of a column."""
    import pyarrow as pa

    return pa.array(rows, arrow_type(column))
