"""The report beside a data set (``dexrun.json``), for the episodes that are in it after an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dexrun.curation.pieces import Excerpt


def report_of(report: Mapping[str, Any], pieces: Sequence[Excerpt]) -> dict[str, Any]:
    """`report` of the first source, its episodes those of `pieces`.

    Of an episode of which a part is kept, what was measured over all of it is not said any more.
    """
    episodes = []
    for number, piece in enumerate(pieces):
        known = dict(piece.episode.said)
        if not piece.whole:
            known.pop("sensors", None)
        episodes.append(
            {
                "source": piece.episode.name,
                **known,
                "episode": number,
                "task": piece.task,
                "label": piece.label or "none",
                "rows": piece.length,
            }
        )
    sensors = [sensor for each in episodes for sensor in each.get("sensors", {}).values()]
    errors = [sensor.get("largest_stamp_error_s", 0.0) for sensor in sensors]
    gaps = sum(len(sensor.get("gaps", ())) for sensor in sensors)
    return {
        **report,
        "episodes": episodes,
        "largest_stamp_error_s": max(errors, default=0.0),
        "gaps": gaps,
    }
