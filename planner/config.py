"""The `[planner]` table."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from runtime.options import Options

FaultName = Literal[
    "none",
    "prose",
    "html",
    "half_json",
    "box_outside",
    "unknown_object",
    "wrong",
    "error_500",
    "hang",
    "slow",
]


class SceneReaderConfig(Options):
    """The embedded stand-in for a VLM; ignored once `PlannerConfig.base_url` names a real one.

    Attributes:
        port: loopback port to listen on; 0 takes a free one.
        max_body_bytes: largest request that is read.
        fault: what it does wrong, for rehearsing failures; ``wrong`` answers in good form, and falsely.
        fault_after: how many requests are answered well before the fault begins.
        fault_requests: how many requests the fault lasts; 0 means all of them.
        slow_s: how much later it answers under the fault ``slow``.
    """

    port: int = Field(default=0, ge=0, le=65535)
    max_body_bytes: int = Field(default=8_000_000, ge=1_000)
    fault: FaultName = "none"
    fault_after: int = Field(default=0, ge=0)
    fault_requests: int = Field(default=0, ge=0)
    slow_s: float = Field(default=5.0, gt=0)


class VlmOptions(Options):
    """A vision-language model: whom to ask, and how long to wait.

    Attributes:
        base_url: an OpenAI-compatible server (``"http://gpu:8000/v1"``); none means the embedded reader.
        model: the model's name there; none takes the first that the server lists.
        api_key_env: the environment variable that holds the key; the key itself is never configured.
        arm_location: where the arm is in the head camera's picture, in words for the model.
        timeout_s: longest wait for one exchange.
        deadline_s: longest time for one task, with all its retries.
        wait_max_s: longest time for which a server that asks to wait (``Retry-After``) is waited for, in all
            for one task and beyond its deadline; one that asks for more fails the task at once.
        retries: further exchanges after a timeout, a refused connection, a 408, 429 or 5xx.
        backoff_s: wait before the first retry; doubled for each further one, up to `backoff_max_s`.
        jpeg_quality: of the pictures sent, 1 to 100.
        image_max_px: longer side of the pictures sent; larger ones are scaled down, boxes scaled back.
        box_units: what the model counts boxes in: ``pixels`` of the picture sent, ``per_mille`` or
            ``fractions`` of it; ``auto`` finds out by a drawn picture, once in a run.
        temperature: of the model's sampling; ``default`` leaves it to the server (some
            models accept no other).
        max_completion_tokens: longest reply asked for.
        scene_reader: the embedded reader's own options.
    """

    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    model: str | None = Field(default=None, min_length=1)
    api_key_env: str = Field(default="DEXRUN_PLANNER_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    arm_location: str = Field(default="at the bottom edge of the picture", min_length=1, max_length=200)
    timeout_s: float = Field(default=20.0, gt=0)
    deadline_s: float = Field(default=60.0, gt=0)
    wait_max_s: float = Field(default=120.0, ge=0, le=86_400)
    retries: int = Field(default=3, ge=0, le=20)
    backoff_s: float = Field(default=0.5, gt=0)
    backoff_max_s: float = Field(default=8.0, gt=0)
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    image_max_px: int = Field(default=1280, ge=64)
    box_units: Literal["auto", "pixels", "per_mille", "fractions"] = "auto"
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["default"] = 0.0
    max_completion_tokens: int = Field(default=1024, ge=16)
    scene_reader: SceneReaderConfig = SceneReaderConfig()

    @field_validator("base_url")
    @classmethod
    def _is_an_api(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            whole = bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            raise ValueError(
                f"{error}; give it as http://host:port/v1, an IPv6 address in brackets"
            ) from None
        if not whole:
            raise ValueError("no host in it; give it as http://host:port/v1, an IPv6 address in brackets")
        if parts.query or parts.fragment:
            raise ValueError("what is asked for is put behind it: give it without ? and #")
        return url

    @model_validator(mode="after")
    def _ordered(self) -> VlmOptions:
        if self.deadline_s < self.timeout_s:
            raise ValueError(f"deadline_s ({self.deadline_s}) must be at least timeout_s ({self.timeout_s})")
        if self.backoff_max_s < self.backoff_s:
            raise ValueError(
                f"backoff_max_s ({self.backoff_max_s}) must be at least backoff_s ({self.backoff_s})"
            )
        return self


class PlannerConfig(VlmOptions):
    """Whom to ask, how long to wait, and what to do when no usable answer comes.

    Attributes:
        prompt: what the person wants done.
        simulated_latency_s: on a stepped clock, how long after its request a reply arrives.
        on_failure: what a mode does about a task that failed in spite of all retries: keep the arm where
            it is and go on (``hold``), or end the run (``stop``).
    """

    prompt: str = Field(default="clear the table", min_length=1, max_length=2_000)
    simulated_latency_s: float = Field(default=0.3, ge=0)
    on_failure: Literal["hold", "stop"] = "hold"
