"""What of the robot's is which of a folder's inputs, and what to write where it does not say itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from policies.lerobot.folder import ACTION, ENVIRONMENT, PICTURES, STATE, Folder
from policies.mapping import KeyMap, ObservationMap
from policies.said_units import NAME as ABOUT
from runtime.input_file import parse_json, read_small
from runtime.joints import JointLayout
from runtime.units import UnitMap

_SHOWN = 12


def looks_through(folder: Folder, keys: KeyMap) -> dict[str, str]:
    """The robot's camera of each of the network's pictures: by camera, the network's name, in its order.

    A SmolVLA may be given fewer pictures than it was trained with.

    Raises:
        FolderError: `keys` names a camera that the folder does not have, or leaves one out.
    """
    known = folder.cameras
    if not keys.cameras:
        return dict(known)
    found: dict[str, str] = {}
    for camera, name in keys.cameras.items():
        short = name.removeprefix(PICTURES)
        meant = known.get(short, PICTURES + short)
        if meant not in known.values() or meant in found:
            twice = " twice" if meant in found else ""
            raise folder.error(
                f"policy.keys.cameras.{camera} = {name!r}{twice}; its cameras are {_listed(known)}"
            )
        found[meant] = camera
    left = [short for short, name in known.items() if name not in found]
    if left and folder.kind != "smolvla":
        raise folder.error(f"policy.keys.cameras has none for its camera {left[0]!r}; {_asked(folder)}")
    return {found[name]: name for name in known.values() if name in found}


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"


def _asked(folder: Folder) -> str:
    return f"it looks through {_listed(folder.cameras)}"


def suggested(folder: Folder, cameras: Sequence[str]) -> str:
    """What to write where the robot has only `cameras`, of other names."""
    wanted, left = list(folder.cameras), list(cameras)
    pairs = {name: name for name in wanted if name in left}
    left = [name for name in left if name not in pairs]
    for name in wanted:
        if name not in pairs and left:
            pairs[name] = left.pop(0)
    if len(pairs) < len(wanted):
        return f"; {_asked(folder)}, which are {len(wanted)} cameras"
    written = ", ".join(f'{pairs[name]} = "{name}"' for name in wanted)
    return f"; {_asked(folder)}: write policy.keys.cameras = {{ {written} }}, as they correspond"


def bound_to(folder: Folder, keys: KeyMap, units: UnitMap, robot: JointLayout) -> ObservationMap:
    """The robot's joints as the network's vectors.

    Raises:
        PolicyError: they do not fit; one line, with what would.
    """
    about = _about(folder)
    state: dict[str, tuple[str, ...]] = {}
    given = keys.state if "state" in keys.model_fields_set else {}
    for key, entries in given.items():
        name = key if key.startswith("observation.") else f"observation.{key}"
        if name not in folder.vectors:
            raise folder.error(f"policy.keys.state.{key}: it takes {_listed(folder.vectors)}")
        state[name] = entries
    if STATE in folder.vectors and STATE not in state:
        state[STATE] = _names(about, STATE, folder.vectors[STATE])
    if ENVIRONMENT in folder.vectors and ENVIRONMENT not in state:
        raise folder.error(
            f"it takes {ENVIRONMENT} of {folder.vectors[ENVIRONMENT]} numbers, which no robot has by itself; "
            f'say what they are: policy.keys.state."{ENVIRONMENT}" = ["tip.x", ...]'
        )
    action = keys.action.get(ACTION, ()) if "action" in keys.model_fields_set else ()
    if extra := sorted(set(keys.action) - {ACTION}):
        raise folder.error(f"policy.keys.action.{extra[0]}: its only action is called {ACTION!r}")
    action = action or _names(about, ACTION, folder.action.shape[0])
    ordered = {name: state[name] for name in folder.vectors}
    bound = ObservationMap(
        keys.model_copy(update={"state": ordered, "action": {ACTION: action}}), units, robot
    )
    for kind, made, sizes in (
        ("state", bound.state, folder.vectors),
        ("action", bound.action, {ACTION: folder.action.shape[0]}),
    ):
        for name, size in sizes.items():
            if len(made[name]) != size:
                raise folder.error(_other_size(kind, name, size, len(made[name]), robot))
    return bound


def _other_size(kind: str, name: str, size: int, have: int, robot: JointLayout) -> str:
    filler = "zero" if kind == "state" else "skip"
    entries = [*robot.names, *[filler] * (size - len(robot.names))][:size]
    written = ", ".join(f'"{each}"' for each in entries[:_SHOWN]) + (", ..." if size > _SHOWN else "")
    return (
        f"its {name} has {size} entries, and policy.keys make {have} of the robot's {len(robot.names)} "
        f'joints; write, in the order of its training, policy.keys.{kind}."{name}" = [{written}]'
    )


def _about(folder: Folder) -> Mapping[str, Any]:
    try:
        said = parse_json(read_small(folder.path / ABOUT, 1 << 24))
    except (OSError, ValueError):
        return {}  # whoever reads its units says what is wrong with it
    return said if isinstance(said, dict) else {}


def _names(about: Mapping[str, Any], feature: str, size: int) -> tuple[str, ...]:
    """The entries that ``dexrun.json`` names; none, which is all joints, if it names none."""
    features = about.get("features")
    held = features.get(feature) if isinstance(features, dict) else None
    names = held.get("names") if isinstance(held, dict) else None
    if not isinstance(names, list) or len(names) != size or not all(isinstance(n, str) for n in names):
        return ()
    return tuple(name.removesuffix(".pos") for name in names)
