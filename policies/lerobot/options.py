"""Options of a LeRobot folder that runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from policies.lerobot.folder import Folder, FolderError, open_folder
from policies.lerobot.matching import looks_through, suggested
from policies.mapping import KeyMap
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable
from runtime.units import UnitMap


class FolderOptions(PolicyTable):
    """What a policy from a folder as LeRobot writes it has, whichever key names the folder.

    Attributes:
        rate_hz: rows per second that its chunks mean: the frames per second of its data set, which LeRobot's
            folder does not say.
        device: ``cpu``, ``cuda``, ``cuda:1``...
        precision: of the network. ``int8``: the large layers of a SmolVLA multiply 8-bit integers, on a CPU,
            which is faster where it has instructions for it (VNNI), and near: docs/benchmarks.md.
        threads: torch's threads on the CPU; 0 leaves them alone.
        seed: of the noise that chunks are made from, where the network needs any.
        inference_steps: of a Diffusion Policy's or SmolVLA's chunk; 0: as the folder says.
        vlm: of a SmolVLA, the folder with tokenizer and sizes of its language model (config.json,
            tokenizer.json), where the folder has no tokenizer itself; its weights are not needed.
        keys: ``cameras``, the robot's names of the cameras to the folder's (``head = "front"``), where they
            are not the same; the entries of ``state`` and ``action``, where they are not all joints; how
            pictures come to the folder's size.
        units: of state and action; without them those that ``dexrun.json`` in the folder says, else LeRobot's
            default: degrees, or percentages in a folder of before 0.4. Normalising that cannot be of them are
            refused.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    extra: ClassVar[str] = "learned"
    names_folder: ClassVar[str] = "path"
    """The key that names the folder."""

    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    threads: int = Field(default=0, ge=0)
    seed: int = 0
    inference_steps: int = Field(default=0, ge=0, le=10_000)
    vlm: str = ""
    keys: KeyMap = KeyMap()
    units: UnitMap = UnitMap()

    @field_validator("keys")
    @classmethod
    def _only_what_has_an_effect(cls, keys: KeyMap) -> KeyMap:
        default = KeyMap()
        for name in ("depths", "masks", "instruction"):
            if getattr(keys, name) != getattr(default, name):
                raise ValueError(
                    f"{name} has no effect here: LeRobot's networks take pictures, state and words"
                )
        for name, rule in (
            ("image", keys.image),
            *((f"images.{each}", r) for each, r in keys.images.items()),
        ):
            if rule.width or rule.height:
                raise ValueError(f"{name}.width and height have no effect here: the folder says them")
        return keys

    @model_validator(mode="before")
    @classmethod
    def _played_as_the_folder_says(cls, given: Any) -> Any:
        """How chunks are spliced, where nobody else says it."""
        named = given.get(cls.names_folder) if isinstance(given, Mapping) else None
        if not isinstance(named, str) or not named:
            return given
        try:
            folder = cls.open(named)
        except FolderError:
            return given  # said where the cameras are looked for
        said = {} if "blend" in given else _splicing(folder.config)
        return {**said, **given}

    @classmethod
    def open(cls, named: str) -> Folder:
        """The folder that the key `names_folder` names.

        Raises:
            FolderError: it cannot be used.
        """
        return open_folder(f"policy.{cls.names_folder}", named)

    def folder(self) -> Folder:
        """What it says.

        Raises:
            FolderError: it cannot be used.
        """
        return self.open(getattr(self, self.names_folder))

    def needs_cameras(self) -> Sequence[CameraNeed]:
        cameras = looks_through(self.folder(), self.keys)
        return [*(CameraNeed("keys.cameras", name) for name in cameras), *self.keys.tip_needs()]

    def other_cameras(self, cameras: Sequence[str]) -> str:
        return suggested(self.folder(), cameras)

    @property
    def held_in(self) -> str:
        """What numbers of the network are held in, but for layers that are rounded."""
        return "float32" if self.precision == "int8" else self.precision

    @property
    def remembers_episode(self) -> bool:
        return False


class LerobotFolderOptions(FolderOptions):
    """``[policy] type = "lerobot"``: a policy that LeRobot trained, from its folder, without LeRobot.

    Attributes:
        path: LeRobot's ``pretrained_model`` folder, of an ACT, a Diffusion Policy or a SmolVLA.
        noise_scheduler: ``DDPM`` or ``DDIM`` for a Diffusion Policy; ``None``: as the folder says.
    """

    type: Literal["lerobot"] = "lerobot"
    path: str = ""
    noise_scheduler: Literal["DDPM", "DDIM"] | None = None


def _splicing(config: Mapping[str, Any]) -> dict[str, Any]:
    """LeRobot's ``temporal_ensemble_coeff`` and ``n_action_steps`` in the words of `SplicingOptions`."""
    decay, chunk, rows = (config.get(k) for k in ("temporal_ensemble_coeff", "chunk_size", "n_action_steps"))
    if isinstance(decay, int | float):
        return {"blend": "temporal_ensemble", "ensemble_decay": float(decay), "request_below": 1.0}
    if isinstance(chunk, int) and isinstance(rows, int) and 0 < rows < chunk:
        return {"execute_steps": rows}
    return {}
