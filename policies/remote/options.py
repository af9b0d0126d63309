"""Options of policies that run behind a server: the ``[policy]`` table with one of these types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from policies.mapping import KeyMap
from policies.remote.hosts import plain_host
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable
from runtime.units import DEFAULT_LEROBOT, UnitMap

_ARM = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")


class RemoteOptions(PolicyTable):
    """What every remote policy has in common.

    Attributes:
        host: name or address of the server, without scheme, port or path.
        port: its port.
        token_env: name of the environment variable that holds the token; empty sends none.
        connect_timeout_s: one attempt to connect, handshake included.
        request_timeout_s: from sending an observation to having its chunk.
        backoff_s: wait after a failed connection; doubled each time up to `backoff_max_s`.
        backoff_max_s: the longest wait between two attempts to connect.
        keep_alive_s: a silent peer is asked for a sign of life this often.
        max_message_mib: a larger reply is refused.
        chunk_steps: rows taken of a reply; a server may give fewer.
        jpeg_quality: compress frames before sending where the server takes it; 0 sends them raw.
        keys: the policy's names for the robot's cameras, state and actions.
        units: the policy's units; what is left out stays as it is by default for this kind of server.
    """

    extra: ClassVar[str] = "remote"
    behind_a_server: ClassVar[bool] = True

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(ge=1, le=65535)
    token_env: str = ""
    connect_timeout_s: float = Field(default=5.0, gt=0.0, le=600.0)
    request_timeout_s: float = Field(default=2.0, gt=0.0, le=600.0)
    backoff_s: float = Field(default=0.2, ge=0.0, le=60.0)
    backoff_max_s: float = Field(default=5.0, ge=0.0, le=600.0)
    keep_alive_s: float = Field(default=10.0, gt=0.0, le=3600.0)
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    chunk_steps: int = Field(default=50, ge=1, le=1000)
    jpeg_quality: int = Field(default=0, ge=0, le=100)
    keys: KeyMap = KeyMap()
    units: UnitMap = UnitMap()

    @field_validator("host")
    @classmethod
    def _a_host_alone(cls, host: str) -> str:
        return plain_host(host)

    @field_validator("units", mode="before")
    @classmethod
    def _over_the_servers_own(cls, given: Any) -> Any:
        own: UnitMap = cls.model_fields["units"].default
        if not isinstance(given, dict):
            return given
        return given if "convention" in given else {**own.model_dump(exclude_unset=True), **given}

    @model_validator(mode="after")
    def _resizing_has_a_size(self) -> RemoteOptions:
        for name, rule in (("image", self.keys.image), *self.keys.images.items()):
            said = {"resize", "interpolation"} & rule.model_fields_set
            if said and not (rule.width or rule.height) and rule != type(rule)(order=rule.order):
                raise ValueError(
                    f"keys.image: {sorted(said)[0]} of {name!r} has no effect without width and height"
                )
        return self

    @model_validator(mode="after")
    def _backoff_grows(self) -> RemoteOptions:
        if self.backoff_max_s < self.backoff_s:
            raise ValueError(f"backoff_max_s {self.backoff_max_s} is less than backoff_s {self.backoff_s}")
        return self

    def needs_cameras(self) -> Sequence[CameraNeed]:
        keys = self.keys
        return [
            *(CameraNeed("keys.cameras", name) for name in keys.cameras),
            *(CameraNeed("keys.depths", name, depth=True) for name in keys.depths),
            *(CameraNeed("keys.masks", name, mask=True) for name in keys.masks),
            *keys.tip_needs(),
        ]

    @property
    def remembers_episode(self) -> bool:
        return False

    def as_served(self) -> Mapping[str, Any]:
        """The names and units that this client sends; each unit given, so that no other default gets in."""
        return {"keys": self.keys.as_sent(), "units": UnitMap(**self.units.model_dump())}


class GrootTable(RemoteOptions):
    """GR00T's policy server (ZeroMQ and msgpack).

    Attributes:
        flat_keys: send ``video.x`` and ``state.x`` in one map, as the simulation wrapper wants it.
        check_modalities: compare the configured keys with the server's when connecting.
    """

    packages: ClassVar[tuple[str, ...]] = ("zmq",)

    type: Literal["groot"] = "groot"
    port: int = Field(default=5555, ge=1, le=65535)
    flat_keys: bool = False
    check_modalities: bool = True
    keys: KeyMap = KeyMap(
        cameras={"head": "front", "wrist": "wrist"},
        state={
            "single_arm": _ARM,
            "gripper": ("gripper",),
        },
        action={
            "single_arm": _ARM,
            "gripper": ("gripper",),
        },
        instruction="annotation.human.task_description",
    )
    units: UnitMap = UnitMap(convention=DEFAULT_LEROBOT)


class LerobotTable(RemoteOptions):
    """LeRobot's asynchronous inference (gRPC and pickle).

    Attributes:
        policy_type: which of LeRobot's policies the server loads (``act``, ``smolvla``, ``pi0``, ...).
        pretrained: the checkpoint's name on the hub or its path on the server.
        device: where the server puts it.
        setup_timeout_s: the server loads the checkpoint within this time.
        classes: the module of LeRobot's classes; another one before version 0.4.
    """

    packages: ClassVar[tuple[str, ...]] = ("grpc",)

    type: Literal["lerobot_grpc"] = "lerobot_grpc"
    port: int = Field(default=8080, ge=1, le=65535)
    policy_type: str = "act"
    pretrained: str = "dexrun"
    device: str = "cpu"
    setup_timeout_s: float = Field(default=120.0, gt=0.0, le=3600.0)
    classes: Literal["lerobot.async_inference.helpers", "lerobot.scripts.server.helpers"] = (
        "lerobot.async_inference.helpers"
    )
    keys: KeyMap = KeyMap(
        cameras={"head": "front", "wrist": "wrist"},
        state={f"{joint}.pos": (joint,) for joint in (*_ARM, "gripper")},
        instruction="task",
    )
    units: UnitMap = UnitMap(convention=DEFAULT_LEROBOT)


class OpenpiTable(RemoteOptions):
    """openpi's policy server (websocket and msgpack)."""

    packages: ClassVar[tuple[str, ...]] = ("websockets",)

    type: Literal["openpi"] = "openpi"
    port: int = Field(default=8000, ge=1, le=65535)
    keys: KeyMap = KeyMap(
        cameras={"head": "observation/image", "wrist": "observation/wrist_image"},
        state={"observation/state": ()},
        action={"actions": ()},
        instruction="prompt",
    )


class ActRemoteTable(RemoteOptions):
    """The ACT server of the seed (ZeroMQ and pickle), and the community's variant of it.

    Attributes:
        dialect: ``status`` sends ``{qpos, images}``; ``command`` adds ``command: step``.
        ask_steps: ask our own server for the chunk itself instead of one aggregated action.
    """

    packages: ClassVar[tuple[str, ...]] = ("zmq",)

    type: Literal["act_zmq"] = "act_zmq"
    port: int = Field(default=5555, ge=1, le=65535)
    dialect: Literal["status", "command"] = "status"
    ask_steps: bool = True
    keys: KeyMap = KeyMap(
        cameras={"head": "rgb_main", "wrist": "rgb_left"}, state={"qpos": ()}, action={"action": ()}
    )
