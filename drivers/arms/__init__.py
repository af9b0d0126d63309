"""Arms as data: the known ones by name, and any other by its MJCF or URDF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drivers.arms.so100 import describe_so100, describe_so100_panning_left
from drivers.arms.so101 import describe_so101
from runtime.arm_model import ModelError
from runtime.body import RobotDescription
from runtime.body_options import BodyOptions
from runtime.model_file import SUFFIXES, describe_file, is_model_file

KNOWN: Mapping[str, Callable[[], RobotDescription]] = {"so100": describe_so100, "so101": describe_so101}
DEFAULT = "so100"
EARLIER: Mapping[tuple[str, str], Callable[[], RobotDescription]] = {
    ("so100", ""): describe_so100_panning_left
}
"""What known arms were in earlier recordings, by model and fingerprint."""


def describe(model: str = "", body: BodyOptions | None = None) -> RobotDescription:
    """The robot called `model`, or of the file `model`; `DEFAULT` if nothing is named.

    Raises:
        ModelError: there is no such model, or its file does not hold the arm described.
        MeshesMissingError: a known model's package is not installed.
    """
    name = model or DEFAULT
    if is_model_file(name):
        return describe_file(name, body or BodyOptions())
    if name not in KNOWN:
        raise ModelError(
            f"no arm is called {name!r}; there are {', '.join(KNOWN)}, or give a file ({_FILES})"
        )
    if body is not None and body != BodyOptions():
        raise ModelError(f"the arm {name!r} is known: what [arm.body] says is for model files ({_FILES})")
    return KNOWN[name]()


_FILES = ", ".join(SUFFIXES)
