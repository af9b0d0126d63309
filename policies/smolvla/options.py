"""Options of SmolVLA: how the runtime uses what `dexrun train` made, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from policies.lerobot.folder import PICTURES, Folder, FolderError, open_folder
from policies.lerobot.matching import looks_through
from policies.lerobot.options import FolderOptions
from policies.lerobot.smolvla_shape import SmolVlaShape
from runtime.options import Options
from runtime.part_context import CameraNeed

KEY = "policy.checkpoint"
AdaptedPart = Literal["expert", "language", "vision"]


class SmolVlaInputs(Options):
    """Inputs that LeRobot's SmolVLA has not; a folder of `dexrun train` says them itself.

    Attributes:
        depth: cameras, by the folder's names, whose depth it looks at, in metres.
        depth_width, depth_height: what depth pictures are brought to, without inventing readings.
        force: channels of the force sensor; 0: it is not looked at.
        tip_camera: the camera in which the instruction's object is tracked, whose place it is then told;
            empty: it is not.
    """

    depth: tuple[str, ...] = ()
    depth_width: int = Field(default=128, ge=32, le=1024)
    depth_height: int = Field(default=96, ge=32, le=1024)
    force: int = Field(default=0, ge=0, le=16)
    tip_camera: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What it has, in words."""
        there = {"depth": bool(self.depth), "force": self.force > 0, "language tip": bool(self.tip_camera)}
        return tuple(name for name, is_there in there.items() if is_there)


class SmolVlaOptions(FolderOptions):
    """``[policy] type = "smolvla"``: a SmolVLA, from a folder of `dexrun train` or of LeRobot's.

    Attributes:
        checkpoint: the folder; to train from, too.
        rtc: how committed rows enter sampling: ``prefix`` gives a network that was trained for it those that
            will have been executed, as they are, and guides where there are more of them than
            `trained_delay`; ``guidance`` always guides; ``none`` ignores them.
        trained_delay: up to how many rows it was trained to go on from.
        inputs: those that LeRobot's has not.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "safetensors", "transformers")
    extra: ClassVar[str] = "vla"
    names_folder: ClassVar[str] = "checkpoint"
    said_by_checkpoint: ClassVar[tuple[str, ...]] = ("rate_hz", "keys", "units", "trained_delay", "inputs")

    type: Literal["smolvla"] = "smolvla"
    checkpoint: str = ""
    rtc: Literal["prefix", "guidance", "none"] = "prefix"
    trained_delay: int = Field(default=0, ge=0, le=1000)
    inputs: SmolVlaInputs = SmolVlaInputs()

    @classmethod
    def open(cls, named: str) -> Folder:
        """The folder `named`, or that of the weights `named`.

        Raises:
            FolderError: it cannot be used, or is of another policy.
        """
        if not named:
            raise FolderError(f"{KEY} is required: a folder of dexrun train, or LeRobot's pretrained_model")
        path = Path(named)
        folder = open_folder(KEY, str(path.parent if path.suffix == ".safetensors" else path))
        if folder.kind != "smolvla":
            raise folder.error(f"it is a {folder.kind}; policy.type = 'lerobot' runs it")
        return folder

    def needs_cameras(self) -> Sequence[CameraNeed]:
        needs = list(super().needs_cameras())
        needs += [CameraNeed("inputs.depth", camera, depth=True) for camera in self.depth_cameras()]
        if tip := self.inputs.tip_camera:
            needs.append(CameraNeed("inputs.tip_camera", tip, depth=True, mask=True, calibration=True))
        return needs

    def depth_cameras(self) -> dict[str, str]:
        """The robot's cameras whose depth it looks at, and the folder's names of them.

        Raises:
            FolderError: the folder has no such camera, or the robot has none for it.
        """
        folder = self.folder()
        known = {
            name.removeprefix(PICTURES): robot for robot, name in looks_through(folder, self.keys).items()
        }
        for name in self.inputs.depth:
            if name not in known:
                raise folder.error(
                    f"policy.inputs.depth: {name!r} is none of its cameras, {', '.join(known)}"
                )
        return {known[name]: name for name in self.inputs.depth}


class SmolVlaTraining(Options):
    """``[recipe]`` of a training of SmolVLA.

    Attributes:
        stage: what is trained: the ``expert`` and what joins it to the language model, as LeRobot does;
            adapters, and what joins it (``lora``); or ``all``, the language model, too.
        vlm: folder of the SmolVLM2 that it begins with. Without it, and without ``policy.checkpoint``, that
            begins with nothing, too: at the sizes of ``shape.vlm``, its words bytes.
        shape: of the network. What of it is given has to be the checkpoint's, but for ``chunk`` and
            ``steps``.
        longest: tokens of an instruction that are read at most.
        freeze_vision: whether its eyes stay as they are in the stage ``all``.
        lora_in: which parts have adapters, in the projections of their attention to queries and values.
        lora_rank, lora_alpha, lora_dropout: of the adapters.
        rtc_delay: up to how many rows of a chunk are given, so that it goes on from what is being executed
            (arXiv 2512.05964); 0: none.
        depth_width, depth_height: what depth pictures are brought to.
    """

    stage: Literal["expert", "lora", "all"] = "expert"
    vlm: str = ""
    shape: SmolVlaShape = SmolVlaShape()
    longest: int = Field(default=48, ge=1, le=4096)
    freeze_vision: bool = True
    lora_in: tuple[AdaptedPart, ...] = ("expert",)
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    rtc_delay: int = Field(default=0, ge=0, le=999)
    depth_width: int = Field(default=128, ge=32, le=1024)
    depth_height: int = Field(default=96, ge=32, le=1024)

    @model_validator(mode="after")
    def _asks_for_something(self) -> SmolVlaTraining:
        if self.rtc_delay >= self.shape.chunk:
            raise ValueError(
                f"rtc_delay {self.rtc_delay}: of a chunk of {self.shape.chunk} rows some have to be asked for"
            )
        if self.stage == "lora" and not self.lora_in:
            raise ValueError("lora_in is empty; name parts: expert, language, vision")
        return self
