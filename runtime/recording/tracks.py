"""From a ring's sample to the messages of its topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.messages import CameraInfo, Tip
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.mcap_file import Channel
from runtime.recording.schemas import Piece, Rows
from runtime.ring import Layout, Ring, Sample
from runtime.tip import LAYOUT as TIP_LAYOUT
from runtime.tip import as_row

IMAGES, DEPTH, ROWS = "images", "depth", "rows"
"""Lanes: what is chunked together, since it compresses alike and is read alike."""

Encode = Callable[[Sample, int], list[Piece]]
"""A sample and its time since the epoch to a message's bytes."""


@dataclass(frozen=True, slots=True)
class Output:
    """One topic that a track feeds. `heavy` ones are encoded by the pool."""

    channel: Channel
    lane: str
    encode: Encode
    heavy: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """A ring, and the topics that each of its samples becomes a message of.

    Attributes:
        name: of the device, for reports.
        in_flight: samples that may be with the encoders at once; 0 for tracks that do not need them.
    """

    name: str
    ring: Ring
    outputs: Sequence[Output]
    in_flight: int = 0

    @property
    def topics(self) -> list[str]:
        """Its topics."""
        return [output.channel.topic for output in self.outputs]


def device_topic(key: str) -> str:
    """Where the arm or leader of the table `key` is recorded: ``/arm``, ``/arms/left``, ``/leaders/left``."""
    return "/" + key.replace(".", "/")


def rows_track(name: str, topic: str, schema: str, ring: Ring) -> Track:
    """States, forces, ticks: a message per sample, exact."""
    rows = Rows(schema, ring.layout)

    def encode(sample: Sample, wall_ns: int) -> list[Piece]:
        del wall_ns
        return [rows.encode(sample.stamp_ns, sample.index, sample.fields)]

    channel = Channel(topic, rows.schema, {"device": name, **rows.metadata()})
    return Track(name, ring, [Output(channel, ROWS, encode)])


def encode_color(color: NDArray[np.uint8], options: RecorderOptions) -> Piece:
    """An RGB image ``[H, W, 3]``, or a mask ``[H, W]``, as JPEG or PNG."""
    import cv2

    image = color if color.ndim == 2 else cv2.cvtColor(color, cv2.COLOR_RGB2BGR)
    if options.lossless or color.ndim == 2:
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    else:
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, options.jpeg_quality])
    if not done:
        raise ValueError(f"an image of shape {color.shape} cannot be encoded")
    encoded: NDArray[np.uint8] = data.reshape(-1)
    return encoded.data


def camera_track(name: str, ring: Ring, options: RecorderOptions, in_flight: int = 12) -> Track:
    """A camera: colour encoded, depth as it is; both messages of a frame have its stamp and number."""
    kind = "png" if options.lossless else "jpeg"

    def color(sample: Sample, wall_ns: int) -> list[Piece]:
        data = encode_color(sample["color"], options)
        return schemas.compressed_image(wall_ns, name, kind, data)

    def depth(sample: Sample, wall_ns: int) -> list[Piece]:
        image = sample["depth"]
        height, width = image.shape
        data = image.astype("<u2", copy=False).tobytes()
        return schemas.raw_depth(wall_ns, name, width, height, data)

    base = f"/cameras/{name}"
    metadata = {"device": name, "quality": "lossless" if options.lossless else str(options.jpeg_quality)}
    outputs = [
        Output(Channel(f"{base}/color", schemas.COMPRESSED_IMAGE, metadata), IMAGES, color, heavy=True)
    ]
    if has_depth(ring.layout):
        plain = Channel(f"{base}/depth", schemas.RAW_IMAGE, {"device": name})
        outputs.append(Output(plain, DEPTH, depth, heavy=True))
    return Track(name, ring, outputs, in_flight)


def has_depth(layout: Layout) -> bool:
    """Whether frames of this layout have depth."""
    return "depth" in layout and min(layout["depth"][0], default=0) > 0


def info_channel(name: str) -> Channel:
    """The topic of a camera's calibration."""
    return Channel(f"/cameras/{name}/info", schemas.CALIBRATION, {"device": name})


def mask_channel(camera: str) -> Channel:
    """The topic of a camera's tracked masks: PNG, 255 on the object."""
    return Channel(f"/mask/{camera}", schemas.COMPRESSED_IMAGE, {"device": camera})


TIPS = Rows("dexrun.Tip", TIP_LAYOUT)


def tip_topic(camera: str) -> str:
    """Where the object was seen last, with every mask of the camera."""
    return f"/tip/{camera}"


def tip_channel(info: CameraInfo) -> Channel | None:
    """The topic of a camera's tips; ``None`` for one that cannot tell any."""
    if info.depth_scale_m is None or info.base_from_camera is None:
        return None
    metadata = {"device": info.name, **TIPS.metadata()}
    return Channel(tip_topic(info.name), TIPS.schema, metadata)


def tip_message(tip: Tip, stamp_ns: int) -> bytes:
    """As the mask of the frame stamped `stamp_ns` has it."""
    return TIPS.encode(stamp_ns, 0, as_row(tip))


def chunk_message(chunk: Any, stamp_ns: int, after_tick: int) -> bytes:
    """A `runtime.messages.ActionChunk` as the control loop took it over, after tick `after_tick` began."""
    from runtime import protobuf as pb

    actions = np.asarray(chunk.actions, "<f8")
    numbers = (stamp_ns, after_tick, chunk.step, chunk.epoch, chunk.observed_ns, len(actions))
    out = b"".join(pb.field_i64(number, int(value)) for number, value in enumerate(numbers, 1))
    inference, rate = (np.array(each, "<f8").tobytes() for each in (chunk.inference_s, chunk.rate_hz))
    out += pb.key(7, pb.I64) + inference + pb.field_bytes(8, actions.tobytes()) + pb.key(9, pb.I64) + rate
    out += pb.field_bytes(10, np.asarray(chunk.discrete, "<i8").tobytes())
    for number, text in enumerate((str(chunk.status), chunk.why, chunk.reasoning), 11):
        out += pb.field_text(number, text)
    return out


def info_message(info: CameraInfo, wall_ns: int) -> bytes:
    """A camera's calibration as a message."""
    return schemas.calibration(wall_ns, info)
