"""``python -m dexrun.panel.rerun_view RUN``: a live run in Rerun's own window, or into a file."""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.export.errors import ExportError
from dexrun.panel.link import NoRunError
from dexrun.panel.streaming import stream, texts_of
from dexrun.printing import fail, say
from dexrun.rerun_window import TIMELINE, must_have_a_display, viewer_program
from runtime.clock import Clock, RealClock
from runtime.ring import Sample

_HOST = "127.0.0.1"
_QUALITY = 80


class RerunSink:
    """A `dexrun.panel.streaming.LiveSink` into a stream of Rerun's, under the names that ``dexrun view`` has.

    Args:
        viewer: the window, if there is one; once it is closed, nobody looks any more.
    """

    def __init__(self, out: Any, viewer: subprocess.Popen[bytes] | None = None) -> None:
        self._out, self._viewer = out, viewer
        self._joints: Sequence[str] = ()
        self._scales: dict[str, float] = {}
        self._said: Sequence[str] = ()

    def begin(self, link: Mapping[str, Any]) -> None:
        """See `LiveSink`."""
        self._joints = link["joints"]
        self._scales = {name: each["depth_scale_m"] or 0.001 for name, each in link["cameras"].items()}

    def wants(self, camera: str) -> bool:
        """See `LiveSink`."""
        return camera in self._scales

    def _at(self, wall_ns: int) -> None:
        self._out.set_time(TIMELINE, timestamp=wall_ns / 1e9)

    def tick(self, wall_ns: int, sample: Sample) -> None:
        """See `LiveSink`."""
        import rerun as rr

        self._at(wall_ns)
        for place, joint in enumerate(self._joints):
            for field in ("position", "clipped"):
                self._out.log(f"joints/{joint}/{field}", rr.Scalars(sample[field][place]))
        for channel, force in enumerate(sample["force"].tolist()):
            self._out.log(f"force/{channel}", rr.Scalars(force))

    def picture(self, camera: str, wall_ns: int, sample: Sample) -> None:
        """See `LiveSink`."""
        import rerun as rr

        self._at(wall_ns)
        path = f"cameras/{camera}"
        self._out.log(f"{path}/color", rr.Image(sample["color"]).compress(jpeg_quality=_QUALITY))
        if "depth" in sample.fields:
            self._out.log(f"{path}/depth", rr.DepthImage(sample["depth"], meter=1.0 / self._scales[camera]))
        mask = sample["mask"] if sample["masked"] else sample["mask"] * 0
        self._out.log(f"{path}/mask", rr.SegmentationImage(mask))

    def status(self, wall_ns: int, status: Mapping[str, Any]) -> None:
        """See `LiveSink`."""
        import rerun as rr

        if (said := texts_of(status)) != self._said:
            self._said = said
            self._at(wall_ns)
            for line in said:
                self._out.log("events", rr.TextLog(line))

    def alive(self) -> bool:
        """See `LiveSink`."""
        return self._viewer is None or self._viewer.poll() is None


def main(arguments: Sequence[str], clock: Clock | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dexrun.panel.rerun_view", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that is on")
    parser.add_argument("--save", type=Path, metavar="FILE.rrd", help="into a file, for `rerun FILE.rrd`")
    given = parser.parse_args(list(arguments))
    try:
        import rerun as rr

        out = rr.RecordingStream("dexrun", recording_id=given.run.resolve().name)
        with _shown(out, given.save) as viewer:
            say(f"{stream(given.run, RerunSink(out, viewer), clock or RealClock())}\n")
    except (NoRunError, ExportError) as error:
        fail(error, "rerun")
        return BAD_CONFIGURATION
    except ImportError:
        fail("Rerun needs the package rerun-sdk: pip install 'dexrun[view]'", "rerun")
        return BAD_CONFIGURATION
    except OSError as error:
        fail(error, "rerun")
        return NOT_DONE
    return OK


@contextlib.contextmanager
def _shown(out: Any, file: Path | None) -> Iterator[subprocess.Popen[bytes] | None]:
    """Have it kept in `file`, or shown in a window that listens to this machine alone."""
    if file is not None:
        out.save(file)
        yield None
        out.disconnect()
        return
    must_have_a_display()
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = probe.getsockname()[1]
    command = [viewer_program(), "--expect-data-soon", "--bind", _HOST, "--port", str(port)]
    viewer = subprocess.Popen([*command, "--memory-limit", "2GB"])  # noqa: S603 - Rerun's own
    try:
        out.connect_grpc(f"rerun+http://{_HOST}:{port}/proxy")
        say("rerun shows the run\n")
        sys.stdout.flush()
        yield viewer
    finally:
        out.disconnect()
        viewer.terminate()
        viewer.wait()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
