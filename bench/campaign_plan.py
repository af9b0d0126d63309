"""What one run of the campaign is, drawn from its seed alone: mode, length, configuration, faults.

A plan is plain JSON, so that it can be sent to another process. Nothing of the program is imported.
"""

from __future__ import annotations

import math
import random
from typing import Any

Plan = dict[str, Any]
Event = dict[str, Any]

MODES = ("teleop", "grasp", "rollout")
SERVOS = 6
CALM_SHARE = 0.08
"""So many runs have no fault at all: what they are accused of is the check's own mistake, or worse."""

LIGHT: dict[str, str] = {
    "realtime.clock": "stepped",
    "terminal.style": "none",
    "world.watched": "true",
    "world.render.mesh_cell_m": "0.01",
    "world.force.rate_hz": "30",
    "force.rate_hz": "30",
    "force.tare_samples": "12",
    "cameras.head.fps": "5",
    "cameras.head.width": "96",
    "cameras.head.height": "72",
    "cameras.wrist.fps": "4",
    "cameras.wrist.width": "80",
    "cameras.wrist.height": "64",
    "arm.state_rate_hz": "30",
    "leader.state_rate_hz": "30",
    "recording.api": "false",
    "recording.keys": "false",
    "recording.encoders": "1",
    "recording.min_free_mib": "16",
    "recording.warn_free_mib": "16",
}
"""What makes a run cheap: small and few pictures, devices at the loop's own rate."""
SEEING = {"cameras.head.width": "320", "cameras.head.height": "240", "cameras.wrist.width": "160"}
SEEING |= {"cameras.wrist.height": "120"}

POLICY_DEEDS = (
    *("raises", "exits", "nan", "inf", "huge", "wide", "narrow", "flat", "empty", "text", "nothing"),
    *("slow", "hangs", "far", "extremes", "low", "done", "failed"),
)
REMOTE_DEEDS = ("close", "garbage", "text", "nan", "wide", "huge", "empty")
PLANNER_DEEDS = (
    *("prose", "html", "half_json", "box_outside", "unknown_object", "error_500", "hang", "slow", "wrong"),
)


def draw(seed: int, modes: tuple[str, ...] = MODES) -> Plan:
    """The run of `seed`, in one of `modes`."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, which is the point
    mode = dice.choice(modes)
    seconds = round(dice.uniform(10.0, 20.0), 2)
    plan: Plan = {"seed": seed, "mode": mode, "seconds": seconds, "options": dict(LIGHT), "events": []}
    plan["options"] |= {"mode": mode, "world.seed": str(dice.randrange(1_000_000))}
    {"teleop": _teleop, "grasp": _grasp, "rollout": _rollout}[mode](plan, dice)
    if dice.random() >= CALM_SHARE:
        _faults(plan, dice)
    plan["events"].sort(key=lambda event: event["at"])
    return plan


# --- modes


def _teleop(plan: Plan, dice: random.Random) -> None:
    """A person that clears the table by the leader, in one episode, or in two."""
    seconds, options = plan["seconds"], plan["options"]
    episodes = dice.choice((1, 1, 2))
    options |= {
        "teleop.scripted": "false",
        "world.operator.enabled": "true",
        "world.operator.speed": f"{dice.uniform(0.6, 2.5):.2f}",
        "world.operator.start_s": f"{dice.uniform(0.0, 3.0):.2f}",
        "recording.episodes": str(episodes),
        "recording.reset_s": "0.5",
        "recording.episode_s": f"{(seconds - 1.0) / episodes - 0.5:.2f}",
    }
    if dice.random() < 0.3:
        options["teleop.gain"] = f"{dice.uniform(0.5, 2.0):.2f}"


def _grasp(plan: Plan, dice: random.Random) -> None:
    """The autonomous mode, on an object or two, for as long as the time lasts."""
    plan["options"] |= SEEING | {
        "world.objects": str(dice.choice((1, 1, 2))),
        "grasp.time_limit_s": str(plan["seconds"]),
    }
    plan["policy"] = {"base": dice.choice(("geometric", "geometric", "wander"))}
    if dice.random() < 0.3:
        plan["options"]["policy.simulated_latency_s"] = f"{dice.uniform(0.05, 1.5):.2f}"


def _rollout(plan: Plan, dice: random.Random) -> None:
    """A policy on a person's prompt, here or behind a server."""
    seconds, options = plan["seconds"], plan["options"]
    episodes = dice.choice((1, 2))
    options |= {
        "recording.episodes": str(episodes),
        "recording.reset_s": "0.5",
        "recording.episode_s": f"{(seconds - 1.0) / episodes - 0.5:.2f}",
        "recording.task": "put the cube in the tray",
    }
    plan["policy"] = {"base": dice.choice(("wander", "wander", "still", "remote"))}
    if dice.random() < 0.3:
        options["policy.simulated_latency_s"] = f"{dice.uniform(0.05, 1.0):.2f}"


# --- faults


def _faults(plan: Plan, dice: random.Random) -> None:
    makers = [_bus, _bus, _camera, _force, _stall, _table]
    if plan["mode"] == "teleop":
        makers += [_hand, _hand, _leader]
    else:
        makers += [_policy, _policy]
    if plan["mode"] == "grasp":
        makers += [_planner]
    for _ in range(dice.choice((1, 2, 2, 3, 4, 6))):
        dice.choice(makers)(plan, dice)
    if dice.random() < 0.04:
        _end(plan, dice)


def _lasting(plan: Plan, dice: random.Random) -> tuple[float, float]:
    """When a fault begins, and when it ends: anything from a twentieth of a second to six seconds later."""
    begins = dice.uniform(0.0, plan["seconds"] * 0.8)
    return begins, begins + math.exp(dice.uniform(math.log(0.05), math.log(6.0)))


def _during(plan: Plan, dice: random.Random, device: str, kind: str, end: str, **values: Any) -> None:
    begins, ends = _lasting(plan, dice)
    plan["events"].append({"at": begins, "device": device, "kind": kind, **values})
    if dice.random() < 0.93:  # the others last until the end
        plan["events"].append({"at": ends, "device": device, "kind": end})


def _bus(plan: Plan, dice: random.Random, wire: str = "follower") -> None:
    kind = dice.choice(("lose", "corrupt", "delay", "silent", "overload", "brownout", "unplug"))
    if kind in ("lose", "corrupt"):
        _during(plan, dice, wire, kind, "clear", fraction=round(dice.uniform(0.01, 0.6), 3))
    elif kind == "delay":
        _during(plan, dice, wire, kind, "clear", count=dice.randint(1, 60))
    elif kind == "unplug":
        _during(plan, dice, wire, kind, "plug")
    elif kind == "brownout":
        plan["events"].append({"at": _lasting(plan, dice)[0], "device": wire, "kind": kind})
    else:
        _during(plan, dice, wire, kind, "clear", servo=dice.randint(1, SERVOS))


def _leader(plan: Plan, dice: random.Random) -> None:
    _bus(plan, dice, "leader")


def _camera(plan: Plan, dice: random.Random) -> None:
    camera = dice.choice(("head", "wrist"))
    kinds = ("freeze", "gone", "torn") + (("garbage",) if camera == "wrist" else ())
    kind = dice.choice(kinds)
    if kind in ("torn", "garbage"):
        for _ in range(dice.randint(1, 8)):
            plan["events"].append({"at": _lasting(plan, dice)[0], "device": camera, "kind": kind})
    else:
        _during(plan, dice, camera, kind, "back")


def _force(plan: Plan, dice: random.Random) -> None:
    kind = dice.choice(("gone", "saturated", "drift", "constant"))
    if kind == "gone":
        _during(plan, dice, "force", kind, "back")
    else:
        value = {"drift": dice.uniform(-10, 10), "constant": dice.uniform(0, 90)}.get(kind, 0.0)
        _during(plan, dice, "force", kind, "clear", value_n=round(value, 2))


def _hand(plan: Plan, dice: random.Random) -> None:
    """The leader is thrown about: now and then, or all the time."""
    count = dice.choice((1, 3, 30))
    for _ in range(count):
        servo, by_rad = dice.randint(1, SERVOS), round(dice.gauss(0.0, 0.5), 3)
        at = _lasting(plan, dice)[0]
        shove = {"at": at, "device": "hand", "kind": "shove", "servo": servo, "value_rad": by_rad}
        plan["events"].append(shove)
    if dice.random() < 0.5:
        plan["events"].append({"at": _lasting(plan, dice)[1], "device": "hand", "kind": "clear"})


def _table(plan: Plan, dice: random.Random) -> None:
    plan["events"].append(
        {
            "at": _lasting(plan, dice)[0],
            "device": "table",
            "kind": "add",
            "x_m": round(dice.uniform(0.14, 0.26), 3),
            "y_m": round(dice.uniform(-0.12, 0.12), 3),
        }
    )


def _stall(plan: Plan, dice: random.Random) -> None:
    """The loop, the whole process or a driver's thread stands still."""
    kind = dice.choice(("loop", "stop", "driver"))
    event = {"at": _lasting(plan, dice)[0], "device": "process", "kind": kind}
    event["seconds"] = round(math.exp(dice.uniform(math.log(0.02), math.log(3.0))), 3)
    if kind == "driver":
        event["thread"] = dice.choice(("arm", "head", "wrist", "force", "leader"))
    plan["events"].append(event)


def _policy(plan: Plan, dice: random.Random) -> None:
    policy = plan["policy"]
    deeds = REMOTE_DEEDS if policy["base"] == "remote" else POLICY_DEEDS
    if policy["base"] == "remote" and dice.random() < 0.5:
        _during(plan, dice, "server", "die", "back")
        return
    first = dice.randint(1, 25)
    last = first + dice.choice((1, 1, 2, 5, 1000))
    deed = {
        "first": first,
        "last": last,
        "kind": dice.choice(deeds),
        "seconds": round(dice.uniform(0.2, 4.0), 2),
    }
    policy.setdefault("deeds", []).append(deed)


def _planner(plan: Plan, dice: random.Random) -> None:
    plan["options"] |= {
        "planner.scene_reader.fault": dice.choice(PLANNER_DEEDS),
        "planner.scene_reader.fault_after": str(dice.randint(0, 8)),
        "planner.scene_reader.fault_requests": str(dice.choice((0, 1, 2, 4))),
        "planner.timeout_s": f"{dice.uniform(1.0, 6.0):.2f}",
    }


def _end(plan: Plan, dice: random.Random) -> None:
    """Something that ends the run: a signal, or the tabletop's own end."""
    kind = dice.choice(("SIGINT", "SIGTERM", "SIGHUP", "world"))
    plan["events"].append({"at": _lasting(plan, dice)[0], "device": "end", "kind": kind})


def faults(plan: Plan) -> list[str]:
    """What was done to the run, each kind once."""
    done = {f"{event['device']}.{event['kind']}" for event in plan["events"]}
    done |= {f"policy.{deed['kind']}" for deed in plan.get("policy", {}).get("deeds", [])}
    if "planner.scene_reader.fault" in plan["options"]:
        done.add(f"planner.{plan['options']['planner.scene_reader.fault']}")
    return sorted(name for name in done if name.split(".")[1] not in ("clear", "back", "plug"))
