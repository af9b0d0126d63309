"""A policy in anybody's Gymnasium environment: ``dexrun eval --env ID --mapping FILE``."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dexrun.config.sources import ConfigError
from dexrun.evaluation.asked import Evaluation
from dexrun.evaluation.mapping import EnvironmentMapping, read_mapping
from dexrun.evaluation.results import ResultFile, SceneResult
from dexrun.evaluation.scenes import Candidate
from runtime.arm_model import ArmModel
from runtime.clock import NS_PER_S, RealClock
from runtime.inference import NotReadyError
from runtime.interfaces import Policy, PolicyError
from runtime.messages import PolicyStatus
from runtime.part_context import CameraNeed, PolicyContext

Tell = Callable[[SceneResult], None]

_TRIES = 100
"""So often a policy is asked in one episode that says it is not ready yet."""


def play_environment(asked: Evaluation, file: ResultFile, tell: Tell) -> None:
    """Every scene that has no result yet, one candidate after the other.

    Raises:
        ConfigError: the environment cannot be made, or a policy cannot be made for it; one line.
    """
    if asked.mapping is None:
        raise ConfigError("--env needs --mapping FILE, which says what its observations and actions are")
    mapping = read_mapping(asked.mapping)
    environment = _made(asked.env, mapping)

    def keep(result: SceneResult) -> None:
        file.add(result)
        tell(result)

    try:
        for candidate in asked.candidates:
            missing = [seed for seed in asked.seeds if (candidate.name, seed) not in file.results]
            if missing:
                _play(asked, candidate, environment, mapping, missing, keep)
    finally:
        environment.close()


def _made(name: str, mapping: EnvironmentMapping) -> Any:
    try:
        import gymnasium
    except ImportError:
        raise ConfigError("--env needs the package gymnasium: pip install 'dexrun[gym]'") from None
    try:
        _register(name)
        return gymnasium.make(name, **mapping.make)
    except Exception as error:  # whatever anybody's environment raises
        raise ConfigError(f"--env {name}: {type(error).__name__}: {error}") from None


def _register(name: str) -> None:
    """Environments are known once their package is imported, which is called as their namespace."""
    namespace, slash, _ = name.rpartition("/")
    if not slash or ":" in name:
        return  # Gymnasium's own, or the package is named
    module = {"dexrun": "dexrun.gym"}.get(namespace, namespace)
    if module.isidentifier() or module == "dexrun.gym":
        with contextlib.suppress(ModuleNotFoundError):  # Gymnasium says what it knows instead
            importlib.import_module(module)


def _play(
    asked: Evaluation,
    candidate: Candidate,
    environment: Any,
    mapping: EnvironmentMapping,
    seeds: list[int],
    keep: Callable[[SceneResult], object],
) -> None:
    policy = policy_for(mapping, [*asked.words, *candidate.words])
    try:
        for seed in seeds:
            keep(play_episode(environment, policy, mapping, candidate.name, seed, asked.task))
    finally:
        policy.close()


def policy_for(mapping: EnvironmentMapping, words: list[str]) -> Policy:
    """The configured policy, made for the environment's joints, warm.

    Raises:
        ConfigError: it cannot be made.
    """
    from dexrun.config.load import load
    from dexrun.policies import build_policy

    def no_model() -> ArmModel:
        raise PolicyError("this policy plans with the arm's model, and an environment has none")

    try:
        table = load(words).policy
        check_shown(table.needs_cameras(), mapping)
        policy = build_policy(table, PolicyContext(mapping.layout, no_model, {}, RealClock()))
        policy.warm_up()
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    return policy


def check_shown(needs: Sequence[CameraNeed], mapping: EnvironmentMapping) -> None:
    """That the mapping has what the policy looks at: without it every scene would be a failure.

    Raises:
        ConfigError: it has not.
    """
    for need in needs:
        kinds = {"images": True, "depth": need.depth, "masks": need.mask}
        for key in (key for key, wanted in kinds.items() if wanted):
            if need.camera not in getattr(mapping, key):
                raise ConfigError(
                    f"the policy looks at {need.camera!r} (policy.{need.key}), and the mapping's {key} have "
                    f"no {need.camera!r}: say where it is in the observation"
                )
        if need.calibration:
            raise ConfigError(
                f"the policy measures with {need.camera!r} (policy.{need.key}), and an environment's cameras "
                "are not calibrated to an arm"
            )


def play_episode(
    environment: Any, policy: Policy, mapping: EnvironmentMapping, candidate: str, seed: int, task: str
) -> SceneResult:
    """One episode from ``reset(seed=seed)``, until it ends or succeeds or its steps are used up.

    Raises:
        ConfigError: the mapping does not fit the environment's observations.
    """
    clock = RealClock()
    began_ns, times = clock.now_ns(), []
    policy.reset()
    seen, _ = environment.reset(seed=seed)
    step, tries, success, why = 0, 0, False, ""
    while step < mapping.steps and not (success or why):
        asked_ns = clock.now_ns()
        try:
            answer = policy.infer(mapping.observation(seen, step, task))
        except NotReadyError as error:
            tries += 1
            why = f"the policy is not ready: {error}" if tries >= _TRIES else ""
            continue
        except PolicyError as error:
            why = str(error)
            break
        times.append((clock.now_ns() - asked_ns) / NS_PER_S)
        rows = answer.rows[: mapping.execute_steps or None]
        if answer.status is PolicyStatus.FAILED or not len(rows):
            why = answer.why or "the policy gives no rows"
        for row in rows[: mapping.steps - step]:
            seen, reward, ended, truncated, info = environment.step(_action(environment, mapping, row))
            step += 1
            success = bool(info.get(mapping.success)) or _rewarded(mapping, float(reward))
            if success or ended or truncated:
                why = "" if success else "the environment ended the episode"
                break
    return SceneResult(
        candidate,
        seed,
        objects_total=1,
        objects_in_tray=int(success),
        success=success,
        outcome="completed" if success else "incomplete",
        why=why or ("" if success else f"no success in {mapping.steps} steps"),
        duration_s=round(step / mapping.rate_hz, 3),
        wall_s=round((clock.now_ns() - began_ns) / NS_PER_S, 2),
        inference_s={"p50": float(np.median(times)), "max": max(times)} if times else {},
    )


def _action(environment: Any, mapping: EnvironmentMapping, row: Any) -> Any:
    return mapping.action(row).astype(getattr(environment.action_space, "dtype", None) or np.float32)


def _rewarded(mapping: EnvironmentMapping, reward: float) -> bool:
    return mapping.success_reward is not None and reward >= mapping.success_reward
