"""Options of the DexGraspVLA controller: the network's shape and how the runtime uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from policies.mapping import KeyMap, VectorKeys
from runtime.options import Options
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable
from runtime.units import UnitMap

Backbone = Literal["vits14", "vitb14", "vitl14", "vitg14", "tiny14", "tinyg14"]


class ControllerShape(Options):
    """The network. The defaults are those of the public controller.

    Attributes:
        head: backbone of the head camera (RGB plus mask), or ``none`` for the one-camera (UMI) variant.
        wrist: backbone of the wrist camera, or ``none``.
        image_size: side of the square input images in pixels, a multiple of 14.
        position_grid: side of the backbones' stored position embedding, in patches.
        observation_steps: observations per request.
        state_size: entries of the state vector (9 for UMI: position and 6-D rotation).
        action_size: entries of one action (9 for UMI).
        horizon: steps of a chunk.
        layers, heads: of the diffusion transformer.
        mask_layers, mask_heads: of the mask network.
        inference_steps, train_steps: of the DDIM schedule (``squaredcos_cap_v2``).
        prediction: what the network predicts.
        norm: ``variance`` divides by the standard deviation, as the pinned ``timm==1.0.12`` does under
            the name RmsNorm; ``rms`` by the root mean square, as later versions do.
        attention_mask: whether training hides cameras from cross-attention at random.
        dropout: in the diffusion transformer's attention, in training.
    """

    head: Backbone | None = "vitb14"
    wrist: Backbone | None = "vitl14"
    image_size: int = Field(default=518, gt=0, multiple_of=14)
    position_grid: int = Field(default=37, gt=0)
    observation_steps: int = Field(default=1, gt=0)
    state_size: int = Field(default=13, gt=0)
    action_size: int = Field(default=13, gt=0)
    horizon: int = Field(default=64, gt=0)
    layers: int = Field(default=12, gt=0)
    heads: int = Field(default=8, gt=0)
    mask_layers: int = Field(default=4, gt=0)
    mask_heads: int = Field(default=8, gt=0)
    inference_steps: int = Field(default=16, gt=0)
    train_steps: int = Field(default=50, gt=0)
    prediction: Literal["epsilon", "sample"] = "epsilon"
    norm: Literal["variance", "rms"] = "variance"
    attention_mask: bool = False
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @field_validator("head", "wrist", mode="before")
    @classmethod
    def _without(cls, given: Any) -> Any:
        return None if given == "none" else given

    @model_validator(mode="after")
    def _check(self) -> ControllerShape:
        if self.head is None and self.wrist is None:
            raise ValueError("head and wrist are both none; give at least one backbone")
        if self.inference_steps > self.train_steps:
            raise ValueError("inference_steps is larger than train_steps")
        return self

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // 14) ** 2

    @property
    def part_lengths(self) -> tuple[int, int, int]:
        """Observation tokens of head, wrist and state."""
        steps = self.observation_steps
        return (
            steps * self.patches * (self.head is not None),
            steps * self.patches * (self.wrist is not None),
            steps,
        )

    @property
    def condition_tokens(self) -> int:
        """All observation tokens, without the time token."""
        return sum(self.part_lengths)


UMI_SHAPE = ControllerShape(
    head=None,
    wrist="vits14",
    image_size=224,
    observation_steps=2,
    state_size=9,
    action_size=9,
    horizon=16,
    layers=7,
)
"""One 224x224 camera, pose state and 9-dim actions with a 6-D rotation."""


class DexGraspTraining(Options):
    """``[recipe]`` of a training of the controller.

    Attributes:
        head_backbone, wrist_backbone: DINOv2's files (``dinov2_vitb14_pretrain.pth``), frozen in training.
        jitter: whether colours are changed at random.
        cache_features: compute what the backbones say of every frame once, and keep it on the disk; without
            `jitter`.
        down: of a UMI replay buffer, rows from one pose to the next (its own buffers of 60 Hz: 3).
        pose_latency, width_latency: by how many rows its pictures are later than poses and widths.
    """

    head_backbone: str = ""
    wrist_backbone: str = ""
    jitter: bool = True
    cache_features: bool = False
    down: int = Field(default=1, ge=1, le=1000)
    pose_latency: float = Field(default=0.0, ge=0, le=1000)
    width_latency: float = Field(default=0.0, ge=0, le=1000)

    @model_validator(mode="after")
    def _check(self) -> DexGraspTraining:
        if self.cache_features and self.jitter:
            raise ValueError("cache_features is of pictures that stay the same: give jitter = false with it")
        return self


class DexGraspOptions(PolicyTable):
    """``[policy] type = "dexgrasp"``.

    Attributes:
        checkpoint: a ``.safetensors``, ``.ckpt``, ``.pt`` or ``.pth`` file; ``""`` runs random weights
            (seeded with `seed`), which only tests and benchmarks want.
        device: ``cpu``, ``cuda``, ``cuda:1``...
        precision: of the networks; sampling itself stays in float32.
        compile: use ``torch.compile`` on the networks.
        cuda_graphs: replay each chunk as one CUDA graph, where the device is a CUDA one.
        threads: torch's threads on the CPU; 0 leaves them alone.
        seed: of the sampler's noise.
        rtc: how the committed steps enter sampling: ``inpaint`` replaces them in each prediction,
            ``guidance`` steers by the gradient as in the paper (slower), ``none`` ignores them.
        image_order: channel order that the checkpoint was trained with; the public controller's is
            BGR frames that its encoder swaps, which is RGB to the network.
        head_camera, wrist_camera: the robot's cameras that the two image inputs come from.
        keys: state and action entries (the two image keys are fixed by the network).
        units: of state and action; without them those that ``dexrun.json`` beside the checkpoint says, if it
            is there.
        shape: the network.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "safetensors")
    extra: ClassVar[str] = "learned"
    said_by_checkpoint: ClassVar[tuple[str, ...]] = (
        "rate_hz",
        "image_order",
        "head_camera",
        "wrist_camera",
        "keys",
        "units",
        "shape",
    )

    type: Literal["dexgrasp"] = "dexgrasp"
    checkpoint: str = ""
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    cuda_graphs: bool = True
    threads: int = Field(default=0, ge=0)
    seed: int = 0
    rtc: Literal["inpaint", "guidance", "none"] = "inpaint"
    image_order: Literal["rgb", "bgr"] = "rgb"
    head_camera: str = "head"
    wrist_camera: str = "wrist"
    keys: VectorKeys = KeyMap()
    units: UnitMap = UnitMap()
    shape: ControllerShape = ControllerShape()

    def needs_cameras(self) -> Sequence[CameraNeed]:
        head = [CameraNeed("head_camera", self.head_camera, mask=True)] if self.shape.head else []
        wrist = [CameraNeed("wrist_camera", self.wrist_camera)] if self.shape.wrist else []
        return [*head, *wrist, *self.keys.tip_needs()]

    @property
    def remembers_episode(self) -> bool:
        return self.shape.observation_steps > 1

    @property
    def untrained(self) -> bool:
        return not self.checkpoint
