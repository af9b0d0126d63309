"""The page on which a person corrects masks: over real sockets, on a real recording."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from dexrun.annotation.corrections import Reviewed
from dexrun.annotation.inside import annotate_file
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.review import ReviewPage
from policies.data.recorded import describe
from runtime.clock import RealClock
from runtime.recording.reader import Episode
from tests.annotation.drawn import COVERED, drawn, overlap, place, run_of, truth

Script = Callable[[httpx.AsyncClient, str], Awaitable[None]]
WRONG = 20
"""From this frame on the object looks otherwise: the tracker loses it."""


def changed(rng: Any, size: tuple[int, int], row: int) -> Any:
    image = np.full((*size, 3), 150, np.uint8)
    if size == (96, 128):
        y, x = place(row)
        image[y : y + 14, x : x + 14] = (200, 20, 20) if row < WRONG else (20, 30, 200)
    return image


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = run_of(tmp_path / "run", drawn(picture=changed)) / "episodes/episode_000000.mcap"
    ref = describe(path)
    assert ref is not None
    annotate_file(ref, AnnotateOptions(moment=0.1))
    return path


def serve(recording: Path, script: Script) -> None:
    clock, options = RealClock(), AnnotateOptions(moment=0.1)
    shown = Reviewed.of(recording, options)
    assert shown is not None

    async def main() -> None:
        page = ReviewPage([shown], options, "Ann", clock)
        try:
            address = await page.open(0)
            async with httpx.AsyncClient(
                base_url=address.split("#")[0], timeout=60.0, trust_env=False
            ) as client:
                await script(client, page.token)
        finally:
            await page.close()

    clock.run(main)


def test_a_click_corrects_the_mask_and_is_followed_from_there(recording: Path) -> None:
    before = recording.read_bytes()
    y, x = place(WRONG)

    async def script(client: httpx.AsyncClient, token: str) -> None:
        head = {"X-Dexrun-Token": token}
        (said,) = (await client.get("/state", headers=head)).json()["episodes"]
        assert (said["phrase"], said["frames"]) == ("red cube", 31)
        assert said["runs"] == ["20-30"]
        picture = await client.get(f"/picture/0/{WRONG}", headers=head)
        assert cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR).shape == (96, 128, 3)
        click = {"episode": 0, "frame": WRONG, "points": [[x + 7, y + 7, True]], "box": None}
        answer = await client.post("/correct", headers=head, json=click)
        assert answer.status_code == 200, answer.text
        assert answer.json()["episodes"][0]["low"] == []

    serve(recording, script)
    assert recording.read_bytes() == before
    with Episode(recording) as episode:
        masks = [episode.mask("head", frame) for frame in range(31)]
        about = episode.annotation("head")
        anchors = episode.array("/annotation/head", "anchor").tolist()
    everywhere = [np.zeros((96, 128), np.uint8) for _ in masks]
    for frame, mask in enumerate(everywhere):
        y, x = place(frame)
        mask[y : y + 14, x : x + 14] = 1
    assert np.mean([overlap(a, b) for a, b in zip(masks, everywhere, strict=True)]) > 0.97
    assert anchors == [0] * WRONG + [1] * (31 - WRONG)
    assert about is not None
    assert [(each.by, each.person, each.phrase) for each in about.anchors] == [
        ("scene_reader", "", "red cube"),
        ("person", "Ann", "red cube"),
    ]


def test_nobody_else_gets_in_and_looking_changes_nothing(recording: Path) -> None:
    async def script(client: httpx.AsyncClient, token: str) -> None:
        head = {"X-Dexrun-Token": token}
        click = {"episode": 0, "frame": 3, "points": [[30, 40, True]], "box": None}
        page = await client.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(r"(src|href)=", page.text)
        for path in ("/state", "/picture/0/0"):
            assert (await client.get(path)).status_code == 403
        assert (await client.post("/correct", json=click)).status_code == 403
        wrong = {"X-Dexrun-Token": "guessed"}
        assert (await client.post("/correct", headers=wrong, json=click)).status_code == 403
        for more in (
            {"Host": "dexrun.example"},
            {"Origin": "http://dexrun.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            assert (await client.post("/correct", headers={**head, **more}, json=click)).status_code == 403
        form = {**head, "Content-Type": "text/plain"}
        assert (await client.post("/correct", headers=form, content="{}")).status_code == 415
        assert (await client.get("/correct", headers=head)).status_code == 405
        assert (await client.post("/state", headers=head)).status_code == 405
        assert (await client.get("/picture/0/99", headers=head)).status_code == 404
        assert (await client.get("/picture/../x", headers=head)).status_code == 404

    annotation = recording.parents[1] / "annotations/head" / recording.name
    before = annotation.stat()
    serve(recording, script)
    assert annotation.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"points": []}, "click on the object"),
        ({"points": [[10, 10, False]]}, "click on the object"),
        ({"points": [[500, 10, True]]}, "not inside the picture of 128 by 96"),
        ({"points": [["x", 10, True]]}, "expected a frame, points"),
        ({"points": [[1e400, 1, True]]}, "not inside the picture"),
        ({"box": [1, 2, 3]}, "expected a frame"),
        ({"frame": 400, "points": [[10, 10, True]]}, "there is no frame 400"),
        ({"points": [[2, 2, True]] * 101}, "at most 100"),
    ],
)
def test_what_says_nothing_is_refused_in_one_line(recording: Path, said: Any, why: str) -> None:
    async def script(client: httpx.AsyncClient, token: str) -> None:
        import json

        body = json.dumps({"episode": 0, "frame": 3, "box": None, **said}).encode()
        head = {"X-Dexrun-Token": token, "Content-Type": "application/json"}
        answer = await client.post("/correct", headers=head, content=body)
        assert answer.status_code == 409
        assert why in answer.json()["error"]
        for broken in (b"", b"[]", b'{"episode": 7}', b'{"episode": true}', b"{" * 5000):
            assert (await client.post("/correct", headers=head, content=broken)).status_code in (400, 404)

    serve(recording, script)


def test_an_object_that_is_hidden_is_listed(tmp_path: Path) -> None:
    path = run_of(tmp_path / "run", drawn()) / "episodes/episode_000000.mcap"
    ref = describe(path)
    assert ref is not None
    annotate_file(ref, AnnotateOptions())
    shown = Reviewed.of(path, AnnotateOptions())
    assert shown is not None
    assert set(COVERED) <= set(shown.low)
    assert not truth(COVERED[0]).any()
