"""Options of ACT: the network's shape and how the runtime uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from policies.mapping import KeyMap, PictureKeys
from runtime.options import Options
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable
from runtime.units import UnitMap


class ActShape(Options):
    """The network. Sizes are read from the checkpoint where it says them; the rest is configured here.

    Attributes:
        state_size, action_size: entries of ``qpos`` and of an action.
        chunk: actions predicted at once (``num_queries``).
        hidden: width of the transformers.
        feedforward: width inside their feed-forward networks.
        heads: attention heads.
        encoder_layers: of the observation encoder and of the CVAE's encoder.
        latent: size of the CVAE's latent.
        base_width: channels of the first stage of the ResNet-18 (64; less only in tests).
        norm: of the ResNet-18: ``frozen_batch`` with ImageNet's weights, ``group`` from nothing.
    """

    state_size: int = Field(default=14, gt=0)
    action_size: int = Field(default=14, gt=0)
    chunk: int = Field(default=100, gt=0)
    hidden: int = Field(default=512, gt=0, multiple_of=4)
    feedforward: int = Field(default=3200, gt=0)
    heads: int = Field(default=8, gt=0)
    encoder_layers: int = Field(default=4, gt=0)
    latent: int = Field(default=32, gt=0)
    base_width: int = Field(default=64, gt=0)
    norm: Literal["frozen_batch", "group"] = "frozen_batch"


class ActTraining(Options):
    """``[recipe]`` of a training of ACT.

    Attributes:
        kl_weight: of the latent's divergence.
        dropout: in the transformers' residual branches.
        backbone: ImageNet's weights of a ResNet-18, torchvision's file; without it the ResNet begins with
            nothing, and has group norms.
        backbone_lr: learning rate of the ResNet, if it is not the optimiser's.
        thought_age_s: for the fast half of type ``slow_fast``: where the object is
            (``switches.use_language_tip``) is what a slow half that points has said up to so long ago; each
            sample draws when, and the policy is told (``thought.age``). 0: it is where it was seen last.
    """

    kl_weight: float = Field(default=10.0, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    backbone: str = ""
    backbone_lr: float | None = Field(default=None, ge=0)
    thought_age_s: float = Field(default=0.0, ge=0, le=60)


class ActOptions(PolicyTable):
    """``[policy] type = "act"``.

    Attributes:
        checkpoint: ``policy_best.ckpt`` or a converted ``.safetensors``; ``""`` runs random weights
            (seeded with `seed`), which only tests and benchmarks want.
        stats: ``dataset_stats.pkl``; ``""`` looks beside the checkpoint. A converted file holds them.
        device: ``cpu``, ``cuda``, ``cuda:1``...
        precision: of the network.
        compile: use ``torch.compile``.
        cuda_graphs: replay each chunk as one CUDA graph, where the device is a CUDA one.
        threads: torch's threads on the CPU; 0 leaves them alone.
        seed: of random weights.
        image_width, image_height: what the network was trained on; cameras of other sizes are resized.
        cameras: the robot's cameras in the order of training.
        keys: state and action entries, and `tip_camera`; images are those of `cameras`, and `image` (for one
            camera: `images`) says their channel order and how they come to `image_width` and `image_height`.
        units: of state and action; without them those that ``dexrun.json`` beside the checkpoint says, if it
            is there.
        shape: the network.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    extra: ClassVar[str] = "learned"
    said_by_checkpoint: ClassVar[tuple[str, ...]] = (
        "rate_hz",
        "image_width",
        "image_height",
        "cameras",
        "keys",
        "units",
        "shape",
    )

    type: Literal["act"] = "act"
    checkpoint: str = ""
    stats: str = ""
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    cuda_graphs: bool = True
    threads: int = Field(default=0, ge=0)
    seed: int = 0
    image_width: int = Field(default=640, gt=0)
    image_height: int = Field(default=480, gt=0)
    cameras: tuple[str, ...] = ("head",)
    keys: PictureKeys = KeyMap()
    units: UnitMap = UnitMap()
    shape: ActShape = ActShape()

    def needs_cameras(self) -> Sequence[CameraNeed]:
        return [*(CameraNeed("cameras", name) for name in self.cameras), *self.keys.tip_needs()]

    @property
    def remembers_episode(self) -> bool:
        return False

    @property
    def untrained(self) -> bool:
        return not self.checkpoint
