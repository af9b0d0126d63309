"""``python -m dexrun.panel.foxglove_server RUN --port N``: a live run over Foxglove's WebSocket, to look at.

It takes no command and has no parameters. Pictures are encoded only while somebody has subscribed to them; of
what a slow reader has not taken, the oldest is dropped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.exit_codes import BAD_CONFIGURATION, OK
from dexrun.panel.link import NoRunError
from dexrun.panel.streaming import stream
from dexrun.printing import fail, say
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.ring import Sample

_HOST, _BACKLOG, _QUALITY = "127.0.0.1", 32, 80
_VECTORS = ("position", "clipped", "requested", "load")


class FoxgloveSink:
    """A `dexrun.panel.streaming.LiveSink` into channels of a context of Foxglove's.

    Topics: ``/joints`` (``foxglove.JointStates``), ``/ticks`` and ``/status`` (JSON), and for each camera
    ``/cameras/NAME/color`` (``foxglove.CompressedImage``) and ``/cameras/NAME/depth`` (``foxglove.RawImage``,
    16 bits, in the camera's own steps).
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._joints: Sequence[str] = ()
        self._channels: dict[str, Any] = {}

    def begin(self, link: Mapping[str, Any]) -> None:
        """See `LiveSink`."""
        import foxglove
        from foxglove.channels import CompressedImageChannel, JointStatesChannel, RawImageChannel

        self._joints = link["joints"]
        anything = {"type": "object"}
        self._channels = {
            "/joints": JointStatesChannel("/joints", context=self._context),
            "/ticks": foxglove.Channel("/ticks", schema=anything, context=self._context),
            "/status": foxglove.Channel("/status", schema=anything, context=self._context),
        }
        for name, camera in link["cameras"].items():
            color, depth = f"/cameras/{name}/color", f"/cameras/{name}/depth"
            self._channels[color] = CompressedImageChannel(color, context=self._context)
            if camera["depth"]:
                self._channels[depth] = RawImageChannel(depth, context=self._context)

    def _wanted(self, topic: str) -> bool:
        return topic in self._channels and bool(self._channels[topic].has_sinks())

    def wants(self, camera: str) -> bool:
        """See `LiveSink`."""
        return any(self._wanted(f"/cameras/{camera}/{kind}") for kind in ("color", "depth"))

    def tick(self, wall_ns: int, sample: Sample) -> None:
        """See `LiveSink`."""
        if self._wanted("/joints"):
            from foxglove.messages import JointState, JointStates

            fields = {"position": "position", "velocity": "velocity", "effort": "load"}
            columns = {name: sample[field].tolist() for name, field in fields.items()}
            joints = [
                JointState(name=name, **{key: values[place] for key, values in columns.items()})
                for place, name in enumerate(self._joints)
            ]
            said = JointStates(timestamp=_timestamp(wall_ns), joints=joints)
            self._channels["/joints"].log(said, log_time=wall_ns)
        if self._wanted("/ticks"):
            values = {name: dict(zip(self._joints, sample[name].tolist(), strict=True)) for name in _VECTORS}
            numbers = {name: int(sample[name]) for name in ("tick", "step", "horizon", "clips", "flags")}
            more = {"force": sample["force"].tolist()}
            self._channels["/ticks"].log({**values, **numbers, **more}, log_time=wall_ns)

    def picture(self, camera: str, wall_ns: int, sample: Sample) -> None:
        """See `LiveSink`."""
        from foxglove.messages import CompressedImage, RawImage

        at, color, depth = _timestamp(wall_ns), f"/cameras/{camera}/color", f"/cameras/{camera}/depth"
        if self._wanted(color):
            said = CompressedImage(timestamp=at, frame_id=camera, data=_jpeg(sample["color"]), format="jpeg")
            self._channels[color].log(said, log_time=wall_ns)
        if self._wanted(depth):
            height, width = sample["depth"].shape
            raw = RawImage(
                timestamp=at,
                frame_id=camera,
                width=width,
                height=height,
                encoding="mono16",
                step=2 * width,
                data=sample["depth"].tobytes(),
            )
            self._channels[depth].log(raw, log_time=wall_ns)

    def status(self, wall_ns: int, status: Mapping[str, Any]) -> None:
        """See `LiveSink`."""
        if self._wanted("/status"):
            self._channels["/status"].log(dict(status), log_time=wall_ns)

    def alive(self) -> bool:
        """See `LiveSink`."""
        return True


def _timestamp(wall_ns: int) -> Any:
    from foxglove.messages import Timestamp

    seconds, rest = divmod(wall_ns, NS_PER_S)
    return Timestamp(sec=seconds, nsec=rest)


def _jpeg(color: Any) -> bytes:
    import cv2

    done, data = cv2.imencode(".jpg", color[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError("a picture that is no JPEG")
    return bytes(data)


def main(arguments: Sequence[str], clock: Clock | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dexrun.panel.foxglove_server", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that is on")
    parser.add_argument("--port", type=int, default=8765, help="0 for any (8765)")
    given = parser.parse_args(list(arguments))
    try:
        import foxglove
    except ImportError:
        fail("this needs the package foxglove-sdk: pip install 'dexrun[view]'", "foxglove")
        return BAD_CONFIGURATION
    context = foxglove.Context()
    try:
        server = foxglove.start_server(
            name=given.run.resolve().name,
            host=_HOST,
            port=given.port,
            capabilities=[],
            context=context,
            message_backlog_size=_BACKLOG,
        )
    except (OSError, RuntimeError) as error:
        fail(f"port {given.port}: {error}", "foxglove")
        return BAD_CONFIGURATION
    try:
        say(f"foxglove at ws://{_HOST}:{server.port}\n")
        sys.stdout.flush()
        say(f"{stream(given.run, FoxgloveSink(context), clock or RealClock())}\n")
    except NoRunError as error:
        fail(error, "foxglove")
        return BAD_CONFIGURATION
    finally:
        server.stop()
    return OK


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
