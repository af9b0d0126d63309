"""Options of DexVLA: how the runtime uses it, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from policies.dexvla.shape import DexVlaShape
from policies.mapping import KeyMap, VectorKeys
from runtime.options import Options
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable
from runtime.units import UnitMap


class DexVlaTraining(Options):
    """``[recipe]`` of a training of DexVLA.

    Attributes:
        stage: what is trained: the ``head`` and what joins it to the language model; these, and adapters in
            the language model (``lora``); or ``all``.
        vlm: folder of the Qwen2-VL or Qwen2.5-VL that it begins with. Without it, and without
            ``policy.checkpoint``, that begins with nothing, too: at the sizes of ``policy.shape.vlm``, its
            words bytes.
        head: file of a diffusion head that was trained alone (the public ScaleDP's), which it begins with.
        language_weight: of the language model's loss, beside the head's.
        lora_rank, lora_alpha, lora_dropout: of the adapters.
        augment: whether pictures are cropped, turned and coloured at random.
        save_memory: compute the language model's activations once more in the backward pass.
    """

    stage: Literal["head", "lora", "all"] = "all"
    vlm: str = ""
    head: str = ""
    language_weight: float = Field(default=1.0, ge=0)
    lora_rank: int = Field(default=64, ge=1)
    lora_alpha: int = Field(default=256, ge=1)
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    augment: bool = True
    save_memory: bool = False


class DexVlaOptions(PolicyTable):
    """``[policy] type = "dexvla"``.

    Attributes:
        checkpoint: folder of the public code's training (``config.json``, ``model.safetensors`` or its parts,
            ``tokenizer.json``; ``dataset_stats.pkl`` in it or beside it); ``""`` runs random weights (seeded
            with `seed`), which only tests and benchmarks want.
        device: ``cpu``, ``cuda``, ``cuda:1``...
        precision: of the network; the arithmetic of denoising stays in float32.
        compile: use ``torch.compile`` on the head's layers.
        threads: torch's threads on the CPU; 0 leaves them alone.
        seed: of the sampler's noise.
        rtc: how the committed steps enter sampling: ``inpaint`` replaces them in each prediction, ``none``
            ignores them.
        longest_reasoning: tokens that the model says at most before each chunk.
        image_order: channel order that the checkpoint was trained with.
        cameras: the robot's cameras in the order of training.
        keys: state and action entries.
        units: of state and action; without them those that ``dexrun.json`` beside the checkpoint says, if it
            is there.
        shape: the network; a public folder says it itself.
    """

    packages: ClassVar[tuple[str, ...]] = (
        "torch",
        "diffusers",
        "safetensors",
        "transformers",
        "tokenizers",
        "accelerate",
    )
    extra: ClassVar[str] = "vla"
    said_by_checkpoint: ClassVar[tuple[str, ...]] = (
        "rate_hz",
        "image_order",
        "cameras",
        "keys",
        "units",
        "shape",
    )

    type: Literal["dexvla"] = "dexvla"
    checkpoint: str = ""
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    threads: int = Field(default=0, ge=0)
    seed: int = 0
    rtc: Literal["inpaint", "none"] = "inpaint"
    longest_reasoning: int = Field(default=256, ge=1, le=4096)
    image_order: Literal["rgb", "bgr"] = "rgb"
    cameras: tuple[str, ...] = ("head",)
    keys: VectorKeys = KeyMap()
    units: UnitMap = UnitMap()
    shape: DexVlaShape = DexVlaShape()

    def needs_cameras(self) -> Sequence[CameraNeed]:
        return [*(CameraNeed("cameras", name) for name in self.cameras), *self.keys.tip_needs()]

    @property
    def remembers_episode(self) -> bool:
        return False

    @property
    def untrained(self) -> bool:
        return not self.checkpoint
