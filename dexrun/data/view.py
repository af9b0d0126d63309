"""``dexrun view RUN``: a recording in Rerun: images, depth, joints with their targets, force, events."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import numpy as np

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.export.errors import ExportError
from dexrun.printing import complain, fail, say
from dexrun.rerun_window import TIMELINE, must_have_a_display, viewer_program
from runtime.joints import prefixed
from runtime.recording.bounds import reading
from runtime.recording.tracks import device_topic

if TYPE_CHECKING:
    from dexrun.data.view_sets import SetEpisode
    from runtime.recording.reader import Episode

E = TypeVar("E", "Episode", "SetEpisode")
_BATCH = 64
_HOST = "127.0.0.1"
_TARGETS = ("requested", "clipped", "sent")
_COLORS = {
    "position": (70, 130, 230),
    "leader": (160, 90, 200),
    "requested": (150, 150, 150),
    "clipped": (240, 150, 30),
    "sent": (60, 170, 90),
}
_PALETTE = ((70, 130, 230), (240, 150, 30), (60, 170, 90), (200, 60, 60), (160, 90, 200), (90, 180, 190))


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="dexrun view",
        description="Open a recording or a data set in Rerun.",
        epilog="example: dexrun view runs/latest --web",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, an .mcap file, or a data set")
    parser.add_argument("--episode", type=int, help="only this one, counted from 0")
    parser.add_argument("--web", action="store_true", help="in a browser, until Ctrl-C")
    parser.add_argument("--web-port", type=int, default=9090, help="of the page (9090)")
    parser.add_argument("--data-port", type=int, default=9876, help="between this and Rerun (9876)")
    parser.add_argument("--save", type=Path, metavar="FILE.rrd", help="into a file, for `rerun FILE.rrd`")
    arguments = parser.parse_args(list(argv))
    try:
        _show(arguments)
    except ExportError as error:
        fail(error)
        return BAD_CONFIGURATION if error.usage else NOT_DONE
    except KeyboardInterrupt:
        complain("\n")
    return OK


def _show(arguments: argparse.Namespace) -> None:
    try:
        import rerun as rr
    except ImportError:
        raise ExportError("dexrun view needs the package rerun-sdk: pip install 'dexrun[view]'") from None
    from runtime.recording.reader import Recording, RecordingError

    if arguments.save is not None and arguments.save.exists():
        raise ExportError(f"{arguments.save}: is there already; give a name that is not")
    from dexrun.data.view_sets import episodes_of, log_set, set_blueprint

    stream = rr.RecordingStream("dexrun", recording_id=str(arguments.run.resolve()))
    exported = episodes_of(arguments.run)
    if exported is not None:
        chosen = _chosen(exported, arguments.episode, arguments.run)
        _present(arguments, stream, set_blueprint(chosen[0]), lambda: log_set(stream, chosen))
        return
    try:
        with Recording(arguments.run) as recording:
            for why in recording.unreadable.values():
                complain(f"left out: {why}\n")
            episodes = _chosen(recording.episodes, arguments.episode, arguments.run)
            with reading(episodes[0].path):
                layout = blueprint(episodes[0])
            _present(arguments, stream, layout, lambda: _log_all(stream, episodes))
    except RecordingError as error:
        raise ExportError(str(error)) from None


def _present(arguments: argparse.Namespace, stream: Any, layout: Any, fill: Callable[[], None]) -> None:
    """Where it was asked for; `fill` puts the data into the stream."""
    if arguments.save is not None:
        _save(stream, layout, fill, arguments.save)
    elif arguments.web:
        _must_be_free(arguments.web_port)
        page = ["--serve-web", "--web-viewer-port", str(arguments.web_port)]
        _show_in(page, arguments.data_port, stream, layout, fill)
    else:
        must_have_a_display()
        _show_in(["--expect-data-soon"], arguments.data_port, stream, layout, fill)


def _chosen(episodes: Sequence[E], index: int | None, run: Path) -> list[E]:
    found = [episode for episode in episodes if index is None or episode.index == index]
    if not found:
        there = ", ".join(str(episode.index) for episode in episodes)
        raise ExportError(f"{run}: no episode {index}; there is: {there}")
    return found


def _save(stream: Any, layout: Any, fill: Callable[[], None], path: Path) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}.partial")
    try:
        stream.save(draft, default_blueprint=layout)
        fill()
        stream.disconnect()
        draft.rename(path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}", usage=False) from None
    finally:
        draft.unlink(missing_ok=True)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB\n")


def _show_in(viewer: list[str], port: int, stream: Any, layout: Any, fill: Callable[[], None]) -> None:
    """In Rerun's own program until it is closed or Ctrl-C; `viewer` says whether that is a window or a page.

    It is started from here, and not by the library, for two reasons: the library's servers listen on every
    interface, and it finds the program only where the environment's programs are on the search path.
    """
    _must_be_free(port)
    command = [
        viewer_program(),
        *viewer,
        "--bind",
        _HOST,
        "--port",
        str(port),
        "--server-memory-limit",
        "75%",
    ]
    address = f"rerun+http://{_HOST}:{port}/proxy"
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as program,  # noqa: S603 - Rerun's
    ):
        try:
            stream.connect_grpc(address, default_blueprint=layout)
            if "--serve-web" in viewer:
                say(f"http://localhost:{viewer[-1]}?url={quote(address, safe='')}\n")
            say("Ctrl-C ends it\n")
            sys.stdout.flush()
            fill()
            if program.wait():
                raise ExportError(f"Rerun ended: {_reason(said)}; or try --web, --save", usage=False)
        finally:
            stream.disconnect()
            program.terminate()


def _reason(said: IO[str]) -> str:
    """The line with which the program ended."""
    said.seek(0)
    lines = said.read().splitlines() or ["without a word"]
    return next((line for line in reversed(lines) if line.startswith("Error")), lines[-1])


def _must_be_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            hint = "choose with --web-port and --data-port"
            raise ExportError(f"port {port}: {error.strerror or error}; {hint}") from None


# --- layout


def blueprint(episode: Episode) -> Any:
    """Cameras on the left, colour over depth; joints, load and force on the right; events below."""
    import rerun.blueprint as rrb

    cameras = [
        rrb.Vertical(*_camera_views(name, name in episode.depth_cameras), name=name)
        for name in episode.cameras
    ]
    joints = [
        rrb.TimeSeriesView(origin=f"joints/{joint}", name=joint, contents=["$origin/**"])
        for joint in episode.robot.get("joint_names", [])
    ]
    tabs: list[Any] = [rrb.Grid(*joints, grid_columns=2, name="joints and targets")]
    tabs += [rrb.TimeSeriesView(origin=origin, name=origin) for origin in ("velocity", "load")]
    right: list[Any] = [rrb.Tabs(*tabs)]
    if episode.topics.get("/force"):
        right.append(rrb.TimeSeriesView(origin="force", name="force in N"))
    right.append(rrb.TextLogView(origin="events", name="events and planner"))
    shares = [4, 1, 1] if len(right) == 3 else [4, 1]
    side = rrb.Vertical(*right, row_shares=shares)
    body = rrb.Horizontal(rrb.Horizontal(*cameras), side, column_shares=[1, 1]) if cameras else side
    return rrb.Blueprint(body, collapse_panels=True)


def _camera_views(name: str, depth: bool) -> Iterator[Any]:
    import rerun.blueprint as rrb

    origin = f"cameras/{name}"
    yield rrb.Spatial2DView(origin=origin, name=f"{name} color", contents=["$origin/color", "$origin/mask"])
    if depth:
        yield rrb.Spatial2DView(origin=origin, name=f"{name} depth", contents=["$origin/depth"])


# --- data


def _log_all(stream: Any, episodes: Sequence[Episode]) -> None:
    for episode in episodes:
        with reading(episode.path):
            log(stream, episode)


def log(stream: Any, episode: Episode) -> None:
    """Everything of an episode, at the times at which it was acquired."""
    import rerun as rr

    for camera in episode.cameras:
        _log_color(stream, episode, camera)
    for camera in episode.depth_cameras:
        _log_depth(stream, episode, camera)
    for topic in episode.topics:
        if topic.startswith("/mask/"):
            _log_masks(stream, episode, topic.removeprefix("/mask/"))
    for path, topic, field, place in series(episode):
        stream.log(path, _styled(path), static=True)
        values = episode.array(topic, field)[:, place]
        stream.send_columns(path, _at(episode.times(topic)), rr.Scalars.columns(scalars=values))
    _log_texts(stream, episode)


def _styled(path: str) -> Any:
    """A curve's name and colour: within a plot, each is another."""
    import rerun as rr

    group, _, rest = path.partition("/")
    name = rest.rpartition("/")[2] if group == "joints" else rest
    color = _COLORS.get(name) or _PALETTE[zlib.crc32(name.encode()) % len(_PALETTE)]
    if name.isdecimal() and len(name) < 9:
        name, color = f"channel {name}", _PALETTE[int(name) % len(_PALETTE)]
    return rr.SeriesLines(colors=color, names=name)


def series(episode: Episode) -> Iterator[tuple[str, str, str, int]]:
    """Curves: path in Rerun, topic, field, and which of its values."""
    names = episode.robot.get("joint_names", [])
    of_arms = [
        (f"{device_topic(key)}/state", field, path, _joints_of(key, names))
        for arm in episode.arms
        for key, field, path in (
            (arm, "position", "joints/{}/position"),
            (arm, "velocity", "velocity/{}"),
            (arm, "load", "load/{}"),
            (arm.replace("arm", "leader", 1), "position", "joints/{}/leader"),
        )
    ]
    of_all = [("/ticks", target, f"joints/{{}}/{target}", names) for target in _TARGETS]
    for topic, field, path, joints in (*of_arms, *of_all):
        if episode.topics.get(topic):
            yield from ((path.format(joint), topic, field, place) for place, joint in enumerate(joints))
    if episode.topics.get("/force"):
        for channel in range(episode.array("/force", "force").shape[1]):
            yield f"force/{channel}", "/force", "force", channel


def _joints_of(key: str, names: Sequence[str]) -> list[str]:
    """The joints of the arm or leader of the table `key`."""
    _, _, arm = key.partition(".")
    return [name for name in names if name.startswith(prefixed(arm, ""))]


def _at(times: Any) -> list[Any]:
    import rerun as rr

    return [rr.TimeColumn(TIMELINE, timestamp=np.asarray(times).astype("datetime64[ns]"))]


def _log_color(stream: Any, episode: Episode, camera: str) -> None:
    """As it was recorded, not decoded."""
    import rerun as rr

    times = episode.times(f"/cameras/{camera}/color")
    for first in range(0, len(times), _BATCH):
        part = range(first, min(first + _BATCH, len(times)))
        images = [episode.color_bytes(camera, index) for index in part]
        columns = rr.EncodedImage.columns(
            blob=[bytes(data) for data, _ in images],
            media_type=[f"image/{kind}" for _, kind in images],
        )
        stream.send_columns(f"cameras/{camera}/color", _at(times[first : first + _BATCH]), columns)


def _log_depth(stream: Any, episode: Episode, camera: str) -> None:
    """As lossless 16-bit PNG with its scale."""
    import cv2
    import rerun as rr

    scale = episode.camera_info(camera).depth_scale_m or 0.001
    times = episode.times(f"/cameras/{camera}/depth")
    for first in range(0, len(times), _BATCH):
        part = range(first, min(first + _BATCH, len(times)))
        images = [
            cv2.imencode(".png", episode.depth(camera, index), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            for index in part
        ]
        columns = rr.EncodedDepthImage.columns(
            blob=[image.tobytes() for image in images],
            media_type=["image/png"] * len(images),
            meter=[1.0 / scale] * len(images),
        )
        stream.send_columns(f"cameras/{camera}/depth", _at(times[first : first + _BATCH]), columns)


def _log_masks(stream: Any, episode: Episode, camera: str) -> None:
    import rerun as rr

    path = f"cameras/{camera}/mask"
    # Without it what is not the object is coloured too.
    context = rr.AnnotationContext([(0, "", (0, 0, 0, 0)), (1, "target", (255, 80, 80, 255))])
    stream.log(path, context, static=True)
    for index, time_ns in enumerate(episode.times(f"/mask/{camera}").tolist()):
        stream.set_time(TIMELINE, timestamp=np.datetime64(time_ns, "ns"))
        stream.log(path, rr.SegmentationImage(episode.mask(camera, index), opacity=0.4))


def _log_texts(stream: Any, episode: Episode) -> None:
    """Events, and what the planner was asked and answered."""
    import rerun as rr

    for topic, level in (("/events", "INFO"), ("/planner", "DEBUG")):
        if not episode.topics.get(topic):
            continue
        for sample in episode.samples(topic):
            stream.set_time(TIMELINE, timestamp=np.datetime64(sample.time_ns, "ns"))
            stream.log(f"events{topic.replace('/events', '')}", rr.TextLog(_line(sample.values), level=level))


def _line(values: Any) -> str:
    rest = ", ".join(f"{key}: {value}" for key, value in values.items() if key not in ("kind", "prompt"))
    return f"{values.get('kind', '')} {rest}"
