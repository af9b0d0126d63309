"""The foreground network: a tiny one, made here, through the code that loads and asks the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.perception.foreground_config import ForegroundConfig
from planner.perception.onnx_file import network_at
from runtime.interfaces import PerceptionError, Point, Prompt, Segmenter
from runtime.messages import ColorImage
from tests.planner.onnx_bytes import SIDE, as_package, bright_is_foreground

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "bright.onnx"
    path.write_bytes(bright_is_foreground())
    return path


def scene() -> ColorImage:
    """Dark, with a bright square and, beside it, a bright disc."""
    image = np.full((120, 160, 3), 40, np.uint8)
    image[40:60, 60:80] = 230
    image[70:90, 100:120] = 230
    return image


def build(path: Path, **options: object) -> Segmenter:
    return ForegroundConfig.model_validate({"path": path, **options}).build()


def test_the_foreground_in_the_box_is_the_object(file: Path) -> None:
    segmenter = build(file, margin=1.0)
    assert isinstance(segmenter, Segmenter)
    found = segmenter.segment(scene(), Prompt(box=(58.0, 38.0, 82.0, 62.0)))
    ys, xs = np.nonzero(found.mask)
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == pytest.approx((60, 40, 79, 59), abs=1)
    assert found.mask.dtype == np.uint8
    assert found.score > 0.9


def test_the_mask_is_cut_to_the_box(file: Path) -> None:
    mask = build(file).segment(scene(), Prompt(box=(70.0, 30.0, 90.0, 70.0))).mask
    xs = np.nonzero(mask)[1]
    assert xs.min() == 70
    assert mask[:, :70].sum() == 0


def test_what_is_shown_ends_with_the_picture(file: Path) -> None:
    image = np.full((50, 50, 3), 40, np.uint8)
    image[:12, :12] = 230
    mask = build(file, margin=5.0).segment(image, Prompt(box=(0.0, 0.0, 14.0, 14.0))).mask
    assert mask[:11, :11].all()
    assert mask.sum() == pytest.approx(144, abs=30)


def test_points_choose_among_the_pieces(file: Path) -> None:
    segmenter = build(file)
    on, beside = Point(70.0, 50.0, True), Point(110.0, 80.0, False)
    assert segmenter.segment(scene(), Prompt(points=(on,))).mask[80, 110] == 0
    box = (50.0, 30.0, 130.0, 100.0)
    both = segmenter.segment(scene(), Prompt(box=box)).mask
    assert both[50, 70] == both[80, 110] == 1
    one = segmenter.segment(scene(), Prompt(box=box, points=(on, beside))).mask
    assert (one[50, 70], one[80, 110]) == (1, 0)


def test_a_network_of_any_size_is_asked_at_1024(tmp_path: Path) -> None:
    path = tmp_path / "any.onnx"
    path.write_bytes(bright_is_foreground([1, 3, "height", "width"]))
    found = build(path).segment(scene(), Prompt(box=(58.0, 38.0, 82.0, 62.0)))
    assert found.mask.sum() == pytest.approx(400, abs=10)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (Prompt(box=(0.0, 0.0, 10.0, 10.0)), r"nothing in the box \[0, 0, 10, 10\] is foreground"),
        (Prompt(box=(0.0, 0.0, 161.0, 10.0)), "is not inside the picture of 160 by 120"),
        (Prompt(points=(Point(160.0, 3.0, True),)), "is not inside the picture of 160 by 120"),
        (Prompt(points=(Point(3.0, 3.0, True),)), "nothing in the picture is foreground"),
    ],
)
def test_what_cannot_be_answered_is_said(file: Path, prompt: Prompt, why: str) -> None:
    with pytest.raises(PerceptionError, match=why):
        build(file).segment(scene(), prompt)


# --- where the network comes from


def test_the_packages_pieces_are_put_together(tmp_path: Path) -> None:
    folder = as_package(tmp_path / "package", bright_is_foreground())
    assert network_at(folder, "medium") == network_at(folder / "dist", "medium") == bright_is_foreground()
    assert build(folder).segment(scene(), Prompt(box=(58.0, 38.0, 82.0, 62.0))).mask.any()


def test_what_is_missing_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = as_package(tmp_path / "package", bright_is_foreground())
    ForegroundConfig(path=folder).check_files()
    with pytest.raises(PerceptionError, match=r"none\.onnx is not there"):
        ForegroundConfig(path=tmp_path / "none.onnx").check_files()
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(PerceptionError, match=r"pointer\.onnx is a pointer of Git LFS"):
        ForegroundConfig(path=tmp_path / "pointer.onnx").check_files()
    next(each for each in (folder / "dist").iterdir() if each.suffix == "").unlink()
    with pytest.raises(PerceptionError, match="is not there"):
        ForegroundConfig(path=folder).check_files()


def test_a_package_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = as_package(tmp_path / "package", bright_is_foreground())
    with pytest.raises(PerceptionError, match="lists no /models/small; there is /models/medium"):
        build(folder, model="small")
    piece = next(each for each in (folder / "dist").iterdir() if each.suffix == "")
    data = piece.read_bytes()
    piece.write_bytes(data[:-1] + b"x")
    with pytest.raises(PerceptionError, match="is damaged"):
        build(folder)
    piece.unlink()
    with pytest.raises(PerceptionError, match="is missing"):
        build(folder)


@pytest.mark.parametrize(
    "text",
    ["5", "null", "true", '"/models/medium"', "[]", '{"/models/medium": {"chunks": [{"hash": "../a"}]}}'],
)
def test_an_index_of_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "resources.json").write_text(text)
    with pytest.raises(PerceptionError, match="lists no /models/medium"):
        build(tmp_path)


def test_an_index_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "resources.json").write_text("[" * 100_000)
    with pytest.raises(PerceptionError, match="is not JSON"):
        build(tmp_path)


@pytest.mark.parametrize(
    "shape", [[2, 3, 64, 64], [1, 3, 2_000_000, 64], [1, 3, 64, 2_000_000], [0, 3, 64, 64], [1, 3, 0, 64]]
)
def test_a_network_of_other_pictures_is_refused(tmp_path: Path, shape: list[int | str]) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(bright_is_foreground(shape))
    with pytest.raises(PerceptionError, match=r"no foreground network|no ONNX network") as caught:
        build(path)
    assert "\n" not in str(caught.value)


def test_a_network_that_fails_at_a_picture_says_it_in_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = build(file)
    monkeypatch.setattr(segmenter, "_size", (SIDE // 2, SIDE))
    with pytest.raises(PerceptionError, match=r"bright\.onnx does not answer: ") as caught:
        segmenter.segment(scene(), Prompt(box=(58.0, 38.0, 82.0, 62.0)))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match="cannot be read: No such file"):
        build(tmp_path / "none.onnx")
    with pytest.raises(PerceptionError, match=r"holds no resources\.json"):
        build(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(PerceptionError, match="is no ONNX network that runs here") as error:
        build(broken)
    assert "\n" not in str(error.value)
    with pytest.raises(PerceptionError, match=r"cannot be read: .*home directory"):
        build(Path("~nouser/x"))
    for check in (build, lambda path: ForegroundConfig(path=path).check_files()):
        with pytest.raises(PerceptionError, match="cannot be read: File name too long"):
            check(tmp_path / ("x" * 300))
    grey = tmp_path / "grey.onnx"
    grey.write_bytes(bright_is_foreground([1, 1, 64, 64]))
    with pytest.raises(PerceptionError, match="is no foreground network"):
        build(grey)
