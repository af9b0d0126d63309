"""A video's memory that stays as small as it was after its first seconds.

`transformers`' streaming sessions keep everything of every frame, 18.6 MB each at 1024x1024. What a frame to
come may still look at is far less: the newest 16 frames' pointers and 6 frames' memories, and those with a
prompt. Everything else is let go after each frame; the masks are the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from torch import Tensor

from planner.perception.sam2_families import FAMILIES
from planner.perception.sam2_network import Sam2Network

Prompted = Mapping[str, Tensor] | Tensor
"""Points as `Sam2Network.points` gives them, or a mask as `Sam2Network.square` does."""


@dataclass(frozen=True)
class Sam2Sighting:
    """One object in one frame.

    Attributes:
        logits: ``[h, w]``, over 0 on the object.
        presence: over 0 where the object is in sight, by the network's own account.
        quality: the intersection over union that the network expects of its mask; 1 of one that was given.
    """

    logits: Tensor
    presence: float
    quality: float


class Sam2Session:
    """The objects of one stream of frames, by number from 0.

    Args:
        size: height and width of the frames.
        remembered_prompts: how many frames with a prompt are kept, of each object.
    """

    def __init__(self, network: Sam2Network, size: tuple[int, int], remembered_prompts: int) -> None:
        self._network = network
        self._remembered = remembered_prompts
        config = network.model.config
        self._reach = max(config.max_object_pointers_in_encoder, config.num_maskmem)
        self._index = -1
        self._qualities: list[float] = []
        self.state: Any = getattr(transformers, FAMILIES[network.kind].session)(
            video_height=size[0],
            video_width=size[1],
            inference_device=network.device,
            inference_state_device=network.device,
            video_storage_device=network.device,
            dtype=network.dtype,
        )

    def step(self, pixels: Tensor, prompts: Mapping[int, Prompted]) -> list[Sam2Sighting]:
        """The next frame ``[1, 3, side, side]``, with prompts for some objects."""
        self._index += 1
        return self._run(pixels, prompts)

    def again(self, prompts: Mapping[int, Prompted]) -> list[Sam2Sighting]:
        """The newest frame once more, with (other) prompts for some objects."""
        pixels = self.state.processed_frames[self._index][None]
        for number in prompts:
            if number in self.state.frames_tracked_per_obj:
                # as a frame that a person spoke about, and no longer as one that was only tracked
                self.state.frames_tracked_per_obj[number].pop(self._index, None)
                self.state.output_dict_per_obj[number]["non_cond_frame_outputs"].pop(self._index, None)
                self.state.remove_point_inputs(number, self._index)
                self.state.remove_mask_inputs(number, self._index)
        return self._run(pixels, prompts)

    def _run(self, pixels: Tensor, prompts: Mapping[int, Prompted]) -> list[Sam2Sighting]:
        for number, prompt in prompts.items():
            place = self.state.obj_id_to_idx(number)
            if isinstance(prompt, Tensor):
                self.state.add_mask_inputs(place, self._index, prompt)
            else:
                self.state.add_point_inputs(place, self._index, dict(prompt))
        self.state.obj_with_new_inputs = sorted(prompts)
        known = self.state.output_dict_per_obj.items()
        fresh = [i for i, kept in known if i in prompts or self._index not in kept["cond_frame_outputs"]]
        qualities: list[Tensor] = []
        hook = self._network.model.mask_decoder.register_forward_hook(
            lambda _, __, answer: qualities.append(answer[1].max())
        )
        try:
            answer = self._network.model(inference_session=self.state, frame=pixels, frame_idx=self._index)
        finally:
            hook.remove()
        self._forget()
        self._qualities += [1.0] * (len(self.state.obj_ids) - len(self._qualities))
        for number, quality in zip(fresh, qualities, strict=True):
            self._qualities[number] = 1.0 if isinstance(prompts.get(number), Tensor) else float(quality)
        logits = answer.pred_masks[:, 0]
        presence = answer.object_score_logits.flatten().tolist()
        return [Sam2Sighting(*each) for each in zip(logits, presence, self._qualities, strict=True)]

    def _forget(self) -> None:
        """Let go of what no frame to come looks at."""
        state = self.state
        state.processed_frames = {self._index: state.processed_frames[self._index]}
        for number, kept in state.output_dict_per_obj.items():
            prompted, tracked = kept["cond_frame_outputs"], kept["non_cond_frame_outputs"]
            for output in (*prompted.values(), *tracked.values()):
                output.pop("high_res_masks", None)
            for memory in (tracked, state.frames_tracked_per_obj[number]):
                _keep_from(memory, self._index - self._reach + 1)
            for old in sorted(prompted)[1 : 1 - self._remembered]:
                del prompted[old]
            _keep_from(state.point_inputs_per_obj[number], self._index)
            _keep_from(state.mask_inputs_per_obj[number], self._index)


def _keep_from(memory: dict[int, Any], first: int) -> None:
    for old in [index for index in memory if index < first]:
        del memory[old]
