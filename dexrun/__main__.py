"""``dexrun``: the command line. Nothing heavy is imported before it is known what is asked for."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import TextIO

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.signals import leave_at_once
from runtime.printable import printable

HELP = """\
usage: dexrun --config config.toml [--mode grasp|teleop|rollout] [--prompt TEXT] [--task TEXT]
              [--episodes N] [--TABLE.KEY VALUE ...]
       dexrun COMMAND [--help]

Runs a tabletop robot arm: cameras and force in, one safe joint target out, every 1/30 s.

  --config FILE        the configuration (default: config.toml)
  --mode MODE          grasp: clear the table on its own;  teleop: a person moves the leader arm;
                       rollout: run a policy, in episodes
  --prompt TEXT        what to do in grasp mode, short for --planner.prompt
  --task TEXT          what is done in the episodes, and what a rollout's policy is asked to do
                       (short for --recording.task)
  --episodes N         end after so many (short for --recording.episodes)
  --view rerun         Rerun's window beside the run (short for --panel.view)
  --TABLE.KEY VALUE    any key of the configuration, e.g. --world.seed 7  --realtime.clock stepped
  --check              say in ten lines what is real, what simulated and what would move, and print the
                       configuration resolved (JSON below lines that begin with #); touch nothing
  --plugins            list the installed arms, cameras, policies..., and why one cannot be used
  --version            print the version

A key is taken from the command line, else from the environment (DEXRUN_WORLD__SEED=7), else from the
file, else it has its default. Secrets come from the environment only.

While teleoperating or in a rollout: SPACE starts and stops an episode, s success, f failure, d discard,
q quit; in a rollout p pauses the policy, and TAB takes over with the leader arm. A button box or a page can
do the same over http://127.0.0.1:8642 (docs/recording.md).

examples:
  dexrun --config config.toml --check
  dexrun --config config.toml --prompt "put the red cube in the tray" --realtime.clock stepped
  dexrun --config config.toml --mode teleop --recording.episodes 5

commands:
  init       ask what there is, or find it, and write a configuration that works
  collect    demonstrations in simulation, made by the geometric policy
  panel      one page in the browser: a run live and driven, data sets, training, evaluation, set-up
  serve      put a policy behind GR00T's, LeRobot's, openpi's or ACT's protocol
  replay     send a recorded episode to the arm again, or verify it target by target
  annotate   masks, boxes, phrases and sub-steps for recorded episodes
  export     turn recordings into data sets (LeRobot, DexGraspVLA, UMI, ACT, DexVLA)
  train      a policy out of a data set
  eval       how often a policy succeeds, with its interval, beside a control
  perceive   what detector, segmenter and point in space see in one picture, said and drawn
  info       what is inside a recording or a data set
  data       check, drop, split, merge, trim, relabel, convert, push and pull data sets
  view       open a recording in Rerun
  convert    turn a policy checkpoint into safetensors, without executing it
  doctor     would a run of the configuration work here: PASS, WARN, FAIL, and what to do
  find-ports which serial ports there are, what answers there, and which of them is which arm
  find-cameras  which cameras there are, a picture of each, and what they really deliver
  setup-motors  give the servos of a new arm their ids, one after another
  calibrate  record an arm's homing offsets and ranges
  fleet      how several robots are, by the metrics of their panels
  service    run dexrun, or its panel, whenever this machine does: a systemd unit
  lead       send this machine's leader to an arm on another machine
  joints     show which way every joint counts, in ticks, radians and LeRobot's units

exit codes: 0 done, 1 not done, 2 bad configuration, 3 stopped by a fault or a safety latch
"""


_HELP = ("-h", "--help")


_COMMANDS = {
    "collect": "dexrun.collecting.command",
    "panel": "dexrun.panel.server.command",
    "serve": "dexrun.serve.command",
    "replay": "dexrun.data.replay",
    "annotate": "dexrun.annotation.command",
    "export": "dexrun.export.command",
    "train": "dexrun.training.command",
    "eval": "dexrun.evaluation.command",
    "perceive": "dexrun.perceiving.command",
    "info": "dexrun.data.info",
    "view": "dexrun.data.view",
    "convert": "dexrun.data.convert",
    "data": "dexrun.curation.command",
    "init": "dexrun.setup.init",
    "doctor": "dexrun.setup.doctor",
    "find-ports": "dexrun.setup.find_ports",
    "find-cameras": "dexrun.setup.find_cameras",
    "setup-motors": "dexrun.setup.setup_motors",
    "calibrate": "dexrun.setup.calibrate",
    "joints": "dexrun.setup.joints",
    "lead": "dexrun.leading.command",
    "service": "dexrun.lab.service",
    "fleet": "dexrun.lab.fleet",
}
"""Where each command's ``main`` is; imported when it is called for."""


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    _open_streams()
    # Read when loguru is imported, here and in children: tracebacks without variables' values, a key perhaps.
    os.environ.setdefault("LOGURU_DIAGNOSE", "NO")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and arguments[:1] and arguments[0].startswith("-"):
        leave_at_once()
    try:
        code = _main(arguments)
    except KeyboardInterrupt:  # in a command
        sys.stderr.write("dexrun: interrupted\n")
        code = NOT_DONE
    if argv is None and any(thread.daemon for thread in threading.enumerate()):
        _leave(code)
    return code


def _open_streams() -> None:
    """Put the null device in for a standard stream that is closed (``>&-``), and let any letter be written.

    Whoever writes there then can, and nothing else gets its number: no port, and no socket that the processes
    which are started here would write to. What a locale without UTF-8 has no letter for is written as escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by number: the lowest is given
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, os.fdopen(null, mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as the error stream does by itself


def _leave(code: int) -> None:
    """End the process past threads that do not return: a driver's call, a policy that was still being built.

    The interpreter would end them wherever they are, and one that is in C++ then takes the process down with
    an abort instead of `code`.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter's own end is left out, not what others asked of it
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(code)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in _HELP or (arguments[0].startswith("-") and arguments[-1] in _HELP):
        code = _print(HELP)
        return code if arguments else BAD_CONFIGURATION
    if arguments[0] == "--version":
        from importlib.metadata import version

        return _print(f"dexrun {version('dexrun')}\n")
    if arguments[0] == "--plugins":
        from dexrun.config.plugins import listing

        return _print(listing())
    if not arguments[0].startswith("-"):
        if arguments[0] not in _COMMANDS:
            return _refuse(f"unknown command {arguments[0]!r}; see dexrun --help")
        command: Callable[[list[str]], int] = import_module(_COMMANDS[arguments[0]]).main
        return command(arguments[1:])
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    from dexrun.config.load import ConfigError, load
    from runtime.interfaces import PerceptionError, PolicyError

    check = "--check" in arguments
    try:
        settings = load([a for a in arguments if a != "--check"])
        if settings.mode != "teleop":
            settings.policy.check_packages()
            settings.check_perception()
    except (ConfigError, PolicyError, PerceptionError) as error:
        return _refuse(str(error))
    if check:
        from dexrun.config.load import dump
        from dexrun.config.overview import overview

        return _print("".join(f"# {line}\n" for line in overview(settings)) + dump(settings) + "\n")
    from dexrun.app import run
    from dexrun.setup.machine import HostMachine
    from dexrun.setup.preflight import warn_before_a_run

    warn_before_a_run(settings, HostMachine())
    return run(settings)


def _refuse(message: str) -> int:
    _write(sys.stderr, "".join(f"dexrun: {line}\n" for line in message.splitlines()))
    return BAD_CONFIGURATION


def _print(text: str) -> int:
    if trouble := _write(sys.stdout, text):
        _write(sys.stderr, f"dexrun: the standard output cannot be written: {trouble}\n")
        return NOT_DONE
    return OK


def _write(stream: TextIO, text: str) -> str:
    """Write `text` now; returns why it cannot be. What is left of it is then not tried again at the end."""
    try:
        stream.write(printable(text))
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error.strerror or str(error)
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
