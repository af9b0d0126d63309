"""The DexGraspVLA controller (arXiv 2502.20900): observation encoder, diffusion transformer, normaliser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.ddim import Denoise, Prefix, Sampler
from policies.dexgrasp.denoiser import Condition, Denoiser, TimeTokens
from policies.dexgrasp.encoder import ObservationEncoder
from policies.dexgrasp.normalizer import LinearNormalizer
from policies.dexgrasp.options import ControllerShape

ACTION = "action"


@dataclass(slots=True)
class ControllerInput:
    """A batch of observations: ``head[B, T, 4, H, W]`` (RGB 0..1 and mask), ``wrist[B, T, 3, H, W]``,
    ``state[B, T, S]``; an image that the network has no camera for is ``None``.
    """

    head: Tensor | None
    wrist: Tensor | None
    state: Tensor


@dataclass(slots=True)
class Fast:
    """What does not change from chunk to chunk, and which shortcuts to take.

    Attributes:
        project_once: keep projected keys and values of the condition over the denoising steps.
    """

    project_once: bool = True
    time: TimeTokens | None = field(default=None, repr=False)


class Controller(nn.Module):
    """Weights and shapes as in the public checkpoint: ``obs_encoder``, ``model``, ``normalizer``."""

    def __init__(self, shape: ControllerShape) -> None:
        super().__init__()
        self.shape = shape
        self._dummy_variable = nn.Parameter(torch.empty(0), requires_grad=False)  # in the public files
        self.obs_encoder = ObservationEncoder(shape)
        self.model = Denoiser(self.obs_encoder.dim, shape)
        self.normalizer = LinearNormalizer()
        self.sampler = Sampler(shape)
        self.fast = Fast()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.pos_emb.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.model.pos_emb.dtype

    def encode(self, observation: ControllerInput) -> Tensor:
        """Observation tokens ``[B, N, C]`` in the network's dtype."""
        images = (observation.head, observation.wrist)
        head, wrist = (None if image is None else image.to(self.device) for image in images)
        return self.obs_encoder(head, wrist, observation.state.to(self.device, self.dtype))  # type: ignore[no-any-return]

    def denoiser_for(self, tokens: Tensor) -> Denoise:
        """The network's prediction per schedule step for one condition, float32 in and out."""
        if not self.fast.project_once:
            steps = self.sampler.timesteps(self.device)

            def plain(x: Tensor, index: int) -> Tensor:
                return self.model(x.to(self.dtype), steps[index : index + 1], tokens).float()  # type: ignore[no-any-return]

            return plain
        time = self._time_tokens(tokens.shape[1])
        condition: Condition = self.model.prepare(tokens)

        def cached(x: Tensor, index: int) -> Tensor:
            return self.model.cached(x.to(self.dtype), index, time, condition).float()

        return cached

    def _time_tokens(self, tokens: int) -> TimeTokens:
        if self.fast.time is None:
            with torch.inference_mode(False), torch.no_grad():  # guidance differentiates through them
                self.fast.time = self.model.time_tokens(self.sampler.timesteps(self.device), tokens)
        return self.fast.time

    def forget_time_tokens(self) -> None:
        """To be called when weights, device or dtype changed."""
        self.fast.time = None

    def predict_action(
        self, observation: ControllerInput, noise: Tensor, prefix: Prefix | None = None
    ) -> Tensor:
        """A chunk in the dataset's units.

        Args:
            observation: a batch of `B`.
            noise: ``[B, horizon, action_size]``, standard normal, float32.
            prefix: the committed part, in the network's units.

        Returns:
            float32 ``[B, horizon, action_size]``.
        """
        guided = prefix is not None and prefix.guidance
        with torch.no_grad() if guided else torch.inference_mode():
            denoise = self.denoiser_for(self.encode(observation))
            chunk = self.sampler.sample(denoise, noise.to(self.device), prefix)
            return self.normalizer.unnormalize(ACTION, chunk)

    @torch.no_grad()
    def attention_maps(
        self, observation: ControllerInput, noise: Tensor
    ) -> tuple[Tensor, dict[int, list[Tensor]]]:
        """A chunk and, per timestep and layer, the first action step's attention ``[B, heads, N+1]``."""
        tokens = self.encode(observation)
        steps = self.sampler.timesteps(self.device)
        maps: dict[int, list[Tensor]] = {}

        def denoise(x: Tensor, index: int) -> Tensor:
            layers: list[Tensor] = []
            maps[self.sampler.steps[index].timestep] = layers
            return self.model(x.to(self.dtype), steps[index : index + 1], tokens, layers).float()  # type: ignore[no-any-return]

        chunk = self.sampler.sample(denoise, noise.to(self.device))
        return self.normalizer.unnormalize(ACTION, chunk), maps

    def compute_loss(
        self,
        observation: ControllerInput,
        actions: Tensor,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """The training loss of ``actions[B, horizon, action_size]`` in the dataset's units.

        Noise is assigned to the batch's chunks so that the total distance is least; it and the
        timesteps ``[B]`` are drawn unless given.
        """
        return self.loss_of(self.encode(observation), actions, noise, timesteps)

    def loss_of(
        self,
        tokens: Tensor,
        actions: Tensor,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """`compute_loss` from the observation's tokens."""
        clean = self.normalizer.normalize(ACTION, actions.to(self.device))
        if noise is None:
            noise = torch.randn_like(clean)
        noise = noise[assign_noise(clean, noise)]
        if timesteps is None:
            timesteps = torch.randint(0, self.shape.train_steps, (clean.shape[0],), device=clean.device)
        noisy = self.sampler.add_noise(clean, noise, timesteps)
        predicted = self.model(noisy.to(self.dtype), timesteps, tokens).float()
        return F.mse_loss(predicted, noise if self.shape.prediction == "epsilon" else clean)

    def load(self, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
        """Load weights by their public names; returns missing and unexpected keys."""
        result = self.load_state_dict(dict(state), strict=False)
        self.forget_time_tokens()
        return list(result.missing_keys), list(result.unexpected_keys)


def assign_noise(clean: Tensor, noise: Tensor) -> Tensor:
    """Which noise goes to which chunk, ``[B]``: the assignment of least total distance."""
    from scipy.optimize import linear_sum_assignment

    distance = torch.cdist(clean.flatten(1), noise.flatten(1))
    _, columns = linear_sum_assignment(distance.detach().cpu().numpy())
    return torch.from_numpy(columns).to(clean.device)
