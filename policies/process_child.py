"""The other end of `policies.process`: makes the policy, answers line by line, ends with its parent."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.process_start import started
from runtime.inference import NotReadyError
from runtime.interfaces import Policy, PolicyError
from runtime.messages import ArmState, Floats, Frame, Observation, Snapshot, Thought, Tip, TrackedMask
from runtime.ring import Ring, Sample


def read_observation(sample: Sample, message: Mapping[str, Any]) -> Observation:
    """The observation that `policies.process.write_observation` took apart."""
    arrays = sample.fields

    def seen(at: str, arm_ns: int, stamps: Mapping[str, int]) -> tuple[ArmState, dict[str, Frame]]:
        arm = ArmState(arm_ns, arrays[f"{at}position"], arrays[f"{at}velocity"], arrays[f"{at}load"])
        return arm, {
            name: Frame(name, stamp, arrays[f"{at}color/{name}"], arrays.get(f"{at}depth/{name}"))
            for name, stamp in stamps.items()
        }

    masks = {
        name: TrackedMask(name, stamp, arrays[f"mask/{name}"], confidence, attempt)
        for name, (stamp, confidence, attempt) in message["masks"].items()
    }
    return Observation(
        message["step"],
        message["epoch"],
        message["stamp_ns"],
        *seen("", message["arm_ns"], message["frames"]),
        masks,
        arrays.get("force"),
        message["instruction"],
        arrays["committed"][: message["committed"]],
        message["frozen_steps"],
        tuple(
            Snapshot(stamp, *seen(f"{number}/", arm_ns, stamps))
            for number, (stamp, arm_ns, stamps) in enumerate(message["history"])
        ),
        {name: np.array(pose) for name, pose in message["end_effector"].items()},
        None if message["tip"] is None else _tip(*message["tip"]),
        None if message["thought"] is None else _thought(message["thought"]),
        message["trial"],
    )


def _tip(point: list[float], sigma: list[float], first: list[float], stamp_ns: int) -> Tip:
    return Tip(np.array(point), np.array(sigma), np.array(first), stamp_ns)


def _thought(said: Mapping[str, Any]) -> Thought:
    return Thought(**{**said, "latent": np.array(said["latent"], np.float32)})


class PolicyChild:
    """One policy, asked by lines."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._observations: Ring | None = None
        self._chunks: Ring | None = None

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one line; a policy's error is one, too."""
        try:
            handle = getattr(self, f"do_{message['do']}")
            return handle(message)  # type: ignore[no-any-return]
        except NotReadyError as error:
            return {"waits_for": str(error)}
        except PolicyError as error:
            return {"error": " ".join(str(error).split())}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}

    def do_make(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Import and construct."""
        table, context = started(message)
        policy = table.build(context)
        self._policy = policy
        return {"spec": self._spec()}

    def _spec(self) -> dict[str, Any]:
        spec = self.policy.spec
        return {
            **{f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)},
            "notes": dict(spec.notes),
        }

    def do_warm_up(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Warm up."""
        self.policy.warm_up()
        return {"spec": self._spec()}

    def do_reset(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Forget the episode."""
        self.policy.reset()
        return {}

    def do_infer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Read the observation, leave a chunk."""
        if self._observations is None or self._observations.name != message["ring"]:
            if self._observations is not None:
                self._observations.close()
            self._observations = Ring.attach(message["ring"])
        sample = self._observations.newest()  # arrays of its own: a policy may keep what it was shown
        if sample is None:
            raise PolicyError("asked without an observation")
        observation = read_observation(sample, message["observation"])
        answer = self.policy.infer(observation)
        rows = np.asarray(answer.rows, np.float64)
        return {
            "ring": self._leave(rows, observation.stamp_ns) if len(rows) else "",
            "status": str(answer.status),
            "why": answer.why,
            "reasoning": answer.reasoning,
            "latent": None if answer.latent is None else np.asarray(answer.latent).tolist(),
            "statistics": dict(self.policy.statistics()),
            "spec": self._spec(),
        }

    def _leave(self, actions: Floats, stamp_ns: int) -> str:
        layout = {"actions": (actions.shape, "<f8")}
        if self._chunks is None or self._chunks.layout != layout:
            self._free()
            self._chunks = Ring.create_shared(layout, 3)
        self._chunks.push(stamp_ns, actions=actions)
        return self._chunks.name

    @property
    def policy(self) -> Policy:
        """The policy, once it was made."""
        if self._policy is None:
            raise PolicyError("asked before it was made")
        return self._policy

    def _free(self) -> None:
        if self._chunks is not None:
            self._chunks.close()
            self._chunks.unlink()
            self._chunks = None

    def close(self) -> None:
        """Let go of everything."""
        self._free()
        if self._observations is not None:
            self._observations.close()
        if self._policy is not None:
            self._policy.close()


def _as_json(number: np.generic) -> Any:
    """A count or an index of numpy's, as policies have them, is a number like any other."""
    return number.item()


def main() -> None:
    """Answer lines on standard input until it closes; other output goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = PolicyChild()
    try:
        for line in sys.stdin.buffer:
            answer = server.answer(json.loads(line))
            out.write(json.dumps(answer, default=_as_json).encode() + b"\n")
            out.flush()
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # the parent has gone, or is being interrupted and will close the pipe
    finally:
        server.close()


if __name__ == "__main__":
    main()
