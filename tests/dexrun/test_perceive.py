"""``dexrun perceive``: what is seen in one picture, said and drawn."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.perceiving import files, seeing
from dexrun.perceiving.command import main
from dexrun.perceiving.drawing import drawn
from dexrun.perceiving.errors import InputError
from dexrun.perceiving.view import PerceivedView
from planner.box_units import shown, shown_box
from runtime.messages import CameraInfo, Intrinsics
from tests.dexrun.rig import ROOT
from tests.export.synthetic import Made, write_run

CONFIG = ["--config", str(ROOT / "config.toml")]
LENS = "500,500,319.5,239.5"
BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5x", 13, b"IHDR", 65535, 65535)
LEFT, TOP, RIGHT, BOTTOM = map(int, shown_box(640, 480))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture of a red cube, and its depth: the table at 0.5 m, the cube 40 mm nearer."""
    cv2.imwrite(str(tmp_path / "cube.png"), shown(640, 480)[..., ::-1])
    depth = np.full((480, 640), 500, np.uint16)
    depth[TOP:BOTTOM, LEFT:RIGHT] = 460
    cv2.imwrite(str(tmp_path / "depth.png"), depth)
    np.save(tmp_path / "metres.npy", depth * np.float32(0.001))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def perceived(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == OK
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


@pytest.mark.parametrize("depth", [["depth.png", "--depth-scale", "0.001"], ["metres.npy"]])
def test_a_picture_and_its_depth_give_a_point(
    here: Path, capsys: pytest.CaptureFixture[str], depth: list[str]
) -> None:
    words = ["--image", "cube.png", "--depth", *depth, "--intrinsics", LENS, "--phrase", "red cube"]
    (seen,) = perceived(*words, capsys=capsys)["seen"]
    assert seen["phrase"] == "red cube"
    assert np.abs(np.subtract(seen["box"], (LEFT, TOP, RIGHT, BOTTOM))).max() <= 2
    assert seen["mask_pixels"] == pytest.approx((RIGHT - LEFT) * (BOTTOM - TOP), rel=0.05)
    middle = np.array([(LEFT + RIGHT - 1) / 2 - 319.5, (TOP + BOTTOM - 1) / 2 - 239.5]) / 500 * 0.46
    np.testing.assert_allclose(seen["point"]["camera_m"], [*middle, 0.46], atol=0.0005)
    assert seen["point"]["base_m"] is None
    drawn = cv2.imread("perceived.png")
    assert drawn.shape == (960, 2560, 3)  # twice as large, with the depth beside it
    plain = shown(640, 480)[..., ::-1].repeat(2, axis=0).repeat(2, axis=1)
    changed = (drawn[:, :1280] != plain).any(axis=2)
    assert changed[2 * TOP : 2 * BOTTOM, 2 * LEFT : 2 * RIGHT].mean() > 0.9  # tinted, with a cross in it
    assert 0.005 < changed.mean() < 0.1  # a text beside it, and nothing else


def test_what_is_said_is_for_people(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a camera of the configuration, in the arm's frame, too; its intrinsics are the configuration's."""
    words = ["--image", "cube.png", "--depth", "metres.npy", "--camera", "head", *CONFIG, "--to", "seen.jpg"]
    assert main([*words, "--phrase", "red cube"]) == OK
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "picture    cube.png, 640x480"
    assert (
        "detector   none is configured: the scene reader's own eyes, which know the simulated table" in said
    )
    (camera,) = [line for line in said if line.startswith("     camera")]
    (base,) = [line for line in said if line.startswith("     base")]
    assert "z +0.4600 m  ±" in camera
    assert camera.endswith("readings")
    assert base.endswith(" mm")
    assert any(line.startswith("     hint     The object is at x ") for line in said)
    assert (here / "seen.jpg").exists()


def test_what_is_missing_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_depth = perceived("--image", "cube.png", "--phrase", "red", capsys=capsys)
    assert without_depth["missing"] == ["no depth: no point in space (--depth)"]
    blind = perceived("--image", "cube.png", "--depth", "metres.npy", "--phrase", "red", capsys=capsys)
    assert "intrinsics are not known" in blind["missing"][0]
    assert blind["seen"][0]["point"] is None
    assert main(["--image", "cube.png", "--phrase", "blue cylinder"]) == NOT_DONE
    assert "nothing    is seen of 'blue cylinder'" in capsys.readouterr().out


def test_the_segmenter_alone_takes_a_box_or_a_click(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = f"{LEFT - 3},{TOP - 3},{RIGHT + 3},{BOTTOM + 3}"
    for words in (["--box", box], ["--click", f"{LEFT + 15},{TOP + 15}"]):
        (seen,) = perceived("--image", "cube.png", *words, capsys=capsys)["seen"]
        assert seen["mask_pixels"] == pytest.approx((RIGHT - LEFT) * (BOTTOM - TOP), rel=0.05)
    (empty,) = perceived("--image", "cube.png", "--box", "10,10,60,60", capsys=capsys)["seen"]
    assert empty["mask_pixels"] is None
    assert empty["why_no_mask"]


def test_a_moment_of_a_recording(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With depth, intrinsics and unit as they were recorded; of a run's folder its first episode."""
    write_run(here / "run", Made())
    words = ["--episode", "run", "--at", "0.4", "--box", "5,5,20,20"]
    said = perceived(*words, capsys=capsys)
    assert said["picture"].startswith("episode_000000.mcap, camera head, picture ")
    assert said["missing"] == [] or "not calibrated" in said["missing"][0]
    assert said["seen"][0]["point"]["camera_m"][2] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--phrase", "cup"], "which picture? give --image FILE, --camera NAME or --episode FILE"),
        (["--image", "cube.png"], "what to look for? give --phrase TEXT"),
        (["--image", "cube.png", "--phrase", " "], "an empty phrase names nothing"),
        (["--image", "none.png", "--phrase", "cup"], "none.png: No such file or directory"),
        (["--image", "text.png", "--phrase", "cup"], "text.png: no picture that can be read"),
        (["--image", "empty.png", "--phrase", "cup"], "empty.png: the file is empty"),
        (["--image", ".", "--phrase", "cup"], ".: Is a directory"),
        (
            ["--image", "cube.png", "--depth", "cube.png", "--phrase", "cup"],
            "uint8, 3 channels; depth is one",
        ),
        (
            ["--image", "cube.png", "--depth", "depth.png", "--phrase", "cup"],
            "counts of what? give --depth-s",
        ),
        (
            ["--image", "cube.png", "--depth", "small.npy", "--phrase", "cup"],
            "small.npy: 5x4; depth must be as",
        ),
        (
            ["--image", "cube.png", "--depth", "far.npy", "--phrase", "cup"],
            "metres are between 0 (no reading)",
        ),
        (
            ["--image", "cube.png", "--depth", "whole.npy", "--phrase", "cup"],
            "int64 is no depth; accepted are",
        ),
        (
            ["--image", "cube.png", "--depth", "text.npy", "--phrase", "cup"],
            "text.npy: no array that can be rea",
        ),
        (
            ["--image", "cube.png", "--depth", "packed.npy", "--phrase", "cup"],
            "packed.npy: no array that can be read (the magic string is not correct",
        ),
        (
            ["--image", "cube.png", "--depth", "endless.npy", "--phrase", "cup"],
            "endless.npy: no array that can be read (",
        ),
        (
            ["--image", "bomb.png", "--phrase", "cup"],
            "bomb.png: no picture that can be read (a picture says ",
        ),
        (
            ["--image", "cube.png", "--depth", "bomb.png", "--phrase", "cup"],
            "bomb.png: no depth that can be read (a picture says that it is 65535x65535",
        ),
        (["--image", "/dev/zero", "--phrase", "cup"], "/dev/zero: a picture has at most 4 MiB, and this"),
        (["--image", "cube.png", "--depth-scale", "1", "--phrase", "cup"], "--depth-scale is for --depth"),
        (
            ["--image", "cube.png", "--depth", "metres.npy", "--depth-scale", "1", "--phrase", "cup"],
            "--depth-scale is for counts; metres.npy holds metres",
        ),
        (["--image", "cube.png", "--at", "1", "--phrase", "cup"], "--at is for --episode"),
        (["--camera", "head", "--intrinsics", LENS, "--phrase", "cup"], "--intrinsics is for --image"),
        (
            ["--image", "cube.png", "--camera", "eye", "--phrase", "a"],
            "--camera eye: [cameras] has head, wrist",
        ),
        (["--image", "cube.png", "--box", "600,0,700,9"], "not inside the picture of 640x480"),
        (["--image", "cube.png", "--box", "9,9,9,9"], "not inside the picture of 640x480"),
        (["--image", "cube.png", "--click=-1,5"], "not inside the picture of 640x480"),
        (
            ["--image", "cube.png", "--phrase", "red", "--to", "a.gif"],
            "the drawn picture is a .png or a .jpg",
        ),
        (
            ["--image", "cube.png", "--phrase", "red", "--to", "./cube.png"],
            "cube.png is what is looked at; give --to another file",
        ),
        (
            ["--image", "cube.png", "--phrase", "red", "--to", "no/a.png"],
            "--to no/a.png: No such file or dire",
        ),
        (["--image", "cube.png", "--phrase", "red", "--config", "no.toml"], "no.toml: no such file"),
        (["--image", "cube.png", "--phrase", "red", "--perception.eyes", "x", *CONFIG], "perception.eyes"),
        (["--episode", "none.mcap", "--phrase", "red"], "none.mcap"),
        (["--episode", ".", "--phrase", "red"], ".: no episodes in it"),
        (["--episode", ".", "--image", "cube.png", "--phrase", "red"], "one picture at a time"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 1 << 22)
    for name in ("text.png", "text.npy"):
        (here / name).write_text("no picture")
    (here / "empty.png").write_bytes(b"")
    np.save(here / "small.npy", np.ones((4, 5), np.uint16))
    with (here / "packed.npy").open("wb") as packed:
        np.savez(packed, depth=np.ones((480, 640), np.uint16))
    with (here / "endless.npy").open("wb") as endless:
        header = {"descr": "<u2", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
        np.lib.format.write_array_header_1_0(endless, header)
    (here / "bomb.png").write_bytes(BOMB)
    np.save(here / "far.npy", np.full((480, 640), 900.0))
    np.save(here / "whole.npy", np.ones((480, 640), np.int64))
    assert main(words) == BAD_CONFIGURATION
    out, told = capsys.readouterr()
    assert out == ""
    assert len(told.splitlines()) == 1
    assert told.startswith("dexrun perceive: ")
    assert said in told
    assert not (here / "perceived.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--intrinsics", "1,2,3"],
        ["--box", "a,b,c,d"],
        ["--depth-scale", "0"],
        ["--at", "nan"],
        ["--at", "inf"],
    ],
)
def test_numbers_that_are_none_are_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["--image", "cube.png", "--phrase", "cup", *words]) == BAD_CONFIGURATION
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"dexrun perceive: {words[0]}: {words[1]!r}: ")


@pytest.mark.parametrize("kind", [MemoryError, type("OutOfMemoryError", (RuntimeError,), {})])
def test_a_memory_that_does_not_suffice_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def full(*_: object) -> None:
        raise kind("16 GiB are wanted")

    monkeypatch.setattr(seeing, "looked_at", full)
    assert main(["--image", "cube.png", "--phrase", "red"]) == BAD_CONFIGURATION
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("dexrun perceive: out of memory: ")


def test_depth_and_lens_are_of_the_pictures_size() -> None:
    """Of a recording or a camera, too: a point would be of another place."""
    color, lens = np.zeros((8, 10, 3), np.uint8), Intrinsics(10, 8, 9.0, 9.0, 4.5, 3.5)
    info = CameraInfo("head", lens, 0.001)
    assert PerceivedView("it", color, np.ones((8, 10), np.uint16), info).measurable
    with pytest.raises(InputError, match="it: the picture is 10x8, and its depth 5x4; they must be of one"):
        PerceivedView("it", color, np.ones((4, 5), np.uint16), info)
    with pytest.raises(InputError, match="it: the picture is 8x10, and its camera's lens 10x8; they"):
        PerceivedView("it", np.zeros((10, 8, 3), np.uint8), np.ones((10, 8), np.uint16), info)


@pytest.mark.parametrize(
    ("shown_px", "drawn_px"),
    [((3000, 1), (3000, 1)), ((500, 100), (2000, 400)), ((4, 4), (900, 900)), ((10, 1000), (10, 1000))],
)
def test_a_narrow_picture_is_not_drawn_endlessly_large(
    shown_px: tuple[int, int], drawn_px: tuple[int, int]
) -> None:
    info = CameraInfo("head", Intrinsics(0, 0, 0.0, 0.0, 0.0, 0.0))
    assert (
        drawn(PerceivedView("it", np.zeros((*shown_px, 3), np.uint8), None, info), []).shape[:2] == drawn_px
    )


def test_a_camera_of_the_simulated_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small one: in the arm's frame, where the table's truth has it to a few millimetres."""
    placed = '[{shape = "cube", color = "red", size_m = [0.03, 0.03, 0.03], x_m = 0.2, y_m = -0.05}]'
    words = [*CONFIG, "--world.placed", placed, "--camera", "head", "--phrase", "red cube"]
    (seen,) = perceived(*words, capsys=capsys)["seen"]
    assert np.abs(np.subtract(seen["point"]["center_m"][:2], (0.2, -0.05))).max() < 0.004
    assert seen["point"]["top_m"] == pytest.approx(0.03, abs=0.002)
