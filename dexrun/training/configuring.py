"""From a command line to a training's configuration: command line over environment over file over what the
policy's authors had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dexrun.config.checkpoint_folders import with_checkpoints
from dexrun.config.errors import Given, explain
from dexrun.config.load import build
from dexrun.config.sources import ConfigError, Path_, merge, parse_arguments, read_environment, read_file
from runtime.options import Options
from runtime.parts import PolicyTable

if TYPE_CHECKING:
    from policies.training.options import TrainingOptions

COMMAND = "train"
"""``DEXRUN_TRAIN__STEPS=20`` is ``--steps 20``."""


class _PolicyAlone(Options):
    policy: PolicyTable


def load_training(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    begun: Mapping[str, Any] | None = None,
) -> TrainingOptions:
    """The configuration of a training.

    Args:
        arguments: of the command line.
        environment: in place of the process's own.
        begun: what a training that goes on has, in place of a file.

    Raises:
        ConfigError: something cannot be used; one line for each mistake.
        PolicyError: the policy cannot be trained here.
    """
    from policies.training.options import TrainingOptions

    path, overrides = parse_arguments(arguments)
    file = str(path) if begun is None else "the training"
    variables = read_environment(environment, COMMAND)
    given: dict[str, Mapping[Path_, str]] = {"command line": overrides, "environment": variables}
    tables = merge(read_file(path) if begun is None else dict(begun), variables, "environment")
    tables, said = with_checkpoints(merge(tables, overrides, "command line"), given, file)
    given |= said
    policy = build(_PolicyAlone, {k: v for k, v in tables.items() if k == "policy"}, file, given).policy
    recipe = tables.get("recipe", {})
    defaults = _defaults(policy, recipe, file, given) if isinstance(recipe, dict) else {}
    return build(TrainingOptions, _over(defaults, tables), file, given)


def _defaults(policy: PolicyTable, table: Mapping[str, Any], file: str, given: Given) -> Mapping[str, Any]:
    """What the policy's authors had, its own table seen to be right."""
    try:
        defaults: Mapping[str, Any] = policy.recipe(table).defaults()
    except ValidationError as error:
        lines = []
        for one in error.errors():
            key = {**one, "loc": ("recipe", *one["loc"])}
            line = explain(key, _PolicyAlone, {}, file, given)
            lines.append(line.partition("; known: ")[0])
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    return defaults


def _over(defaults: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """`tables` over `defaults`, table by table."""
    out = {**defaults, **tables}
    for key in defaults.keys() & tables.keys():
        if isinstance(defaults[key], Mapping) and isinstance(tables[key], Mapping):
            out[key] = _over(defaults[key], tables[key])
    return out
