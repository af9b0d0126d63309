"""``dexrun train --config FILE``: a policy out of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dexrun.config.sources import ConfigError
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK, STOPPED
from dexrun.printing import complain, say
from dexrun.signals import Ending

if TYPE_CHECKING:
    from policies.training.options import TrainingOptions

HELP = """\
usage: dexrun train --config FILE [--data DATA] [--to FOLDER] [--steps N] [--TABLE.KEY VALUE ...]
       dexrun train --resume FOLDER [--steps N] [--TABLE.KEY VALUE ...]

Trains a policy on a data set, in any format that is read. Checkpoints are folders, FOLDER/last the newest.

  --config FILE       the configuration of the training (docs/training.md; docs/examples/train-act.toml)
  --data DATA         the data set
  --to FOLDER         where checkpoints and figures go
  --steps N           of the optimiser
  --TABLE.KEY VALUE   any key of the configuration, e.g. --optimizer.lr 3e-5  --policy.shape.chunk 50
  --resume FOLDER     go on with the training that is there, as if it had not been interrupted

A key is taken from the command line, else from the environment (DEXRUN_TRAIN__STEPS=20), else from the file,
else it is as the policy's authors had it. Ctrl-C and SIGTERM save a checkpoint and end. On many GPUs:
accelerate launch -m dexrun train ...

examples:
  dexrun train --config docs/examples/train-act.toml --data data/pick --steps 20 --to outputs/pick
  dexrun train --resume outputs/pick --steps 200000

exit codes: 0 done, 1 ended before its last step, 2 bad configuration or data, 3 it could not go on
"""
_PACKAGES = ("torch", "accelerate", "diffusers", "safetensors")


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        say(HELP)
        return OK if arguments else BAD_CONFIGURATION
    from policies.data.dataset import DatasetError
    from runtime.interfaces import PolicyError
    from runtime.packages import need

    with Ending() as ending:
        try:
            need("dexrun train", _PACKAGES, "train")
            options, resume = _options(arguments)
            return _train(options, ending, resume=resume)
        except (ConfigError, PolicyError, DatasetError) as error:
            return _fail(str(error), BAD_CONFIGURATION)


def _fail(message: str, code: int) -> int:
    complain("".join(f"dexrun train: {line}\n" for line in message.splitlines()))
    return code


def _options(arguments: Sequence[str]) -> tuple[TrainingOptions, bool]:
    """The configuration, and whether a training is gone on with."""
    from dexrun.training.configuring import load_training
    from policies.training.checkpoints import read_training

    named, rest = _taken("--resume", arguments)
    if named is None:
        if not any(word.partition("=")[0] == "--config" for word in arguments):
            raise ConfigError("give the training's configuration: --config docs/examples/train-act.toml")
        return load_training(arguments), False
    newest = Path(named) / "last" if (Path(named) / "last").exists() else Path(named)
    begun = read_training(newest)
    to = named if newest != Path(named) else str(newest.resolve().parents[1])
    return load_training(rest, begun={**begun, "to": to}), True


def _taken(option: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `option`, and the arguments without it."""
    rest, value = [], None
    words = list(arguments)
    while words:
        name, equals, after = words.pop(0).partition("=")
        if name != option:
            rest.append(name + equals + after)
        elif equals or words:
            value = after if equals else words.pop(0)
        else:
            raise ConfigError(f"{option} needs a value")
    return value, rest


def _train(options: TrainingOptions, ending: Ending, *, resume: bool) -> int:
    from policies.training.trainer import train
    from policies.training.trouble import TrainingError
    from runtime.clock import RealClock

    try:
        end = train(options, clock=RealClock(), tell=_tell, stopped=lambda: ending.came, resume=resume)
    except TrainingError as error:
        return _fail(str(error), STOPPED)
    if end.finished:
        say(f"trained: {end.checkpoint}, {end.step} steps; run with --policy.checkpoint {options.to}/last\n")
        return OK
    say(
        f"stopped after step {end.step} of {options.steps}: {end.checkpoint}; --resume {options.to} goes on\n"
    )
    return NOT_DONE


def _tell(line: str) -> None:
    complain(f"{line}\n")
