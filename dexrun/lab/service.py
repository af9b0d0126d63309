"""``dexrun service``: dexrun as a systemd service of this machine, with the rights it needs and no more."""

from __future__ import annotations

import argparse
import getpass
import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dexrun.config.load import ConfigError, load
from dexrun.config.settings import Settings
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.printing import complain, fail, say

SYSTEM, OWN = Path("/etc/systemd/system"), Path("~/.config/systemd/user")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_GROUPS = {"dialout": "serial ports", "video": "cameras", "render": "the graphics card", "plugdev": "USB"}
_STOP_S = 30


class ServiceError(Exception):
    """The service cannot be made, in one line."""


@dataclass(frozen=True)
class ServicePlan:
    """What the unit is written from.

    Attributes:
        what: ``panel``, ``run`` or ``serve``. name: of the unit, without ``dexrun-``.
        config, folder: absolute; the service works in `folder`.
        user: whose rights it has; empty for a service of the user's own manager.
        groups: those it is in besides. fifo: whether it may ask for a real-time priority.
        python: the interpreter that dexrun is installed for.
        writes: folders that it writes to, absolute.
    """

    what: str
    name: str
    config: Path
    folder: Path
    user: str
    groups: tuple[str, ...]
    fifo: bool
    python: str
    writes: tuple[Path, ...]

    @property
    def unit(self) -> str:
        """The unit's name."""
        return f"dexrun-{self.name}.service"

    @property
    def command(self) -> tuple[str, ...]:
        """What it starts."""
        words = {"panel": ("panel", "--config"), "run": ("--config",), "serve": ("serve", "--config")}
        return (self.python, "-m", "dexrun", *words[self.what], str(self.config))


def unit_text(plan: ServicePlan) -> str:
    """The unit, as systemd reads it (systemd.service(5), systemd.exec(5))."""
    # What moves an arm is begun by a person: after a stop it would come back by itself, whoever stands there.
    restart = "no" if plan.what == "run" else "on-failure"
    does = {"panel": "its panel", "run": "a robot", "serve": "a policy server"}[plan.what]
    lines = [
        "# Written by `dexrun service install`; changes are kept until it is called again.",
        "[Unit]",
        f"Description=dexrun: {does} ({plan.name})",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"WorkingDirectory={str(plan.folder).replace('%', '%%')}",
        f"ExecStart={' '.join(map(_quoted, plan.command))}",
        "# Secrets (the panel's token, keys of servers), one NAME=value a line, readable by root alone.",
        f"EnvironmentFile=-{_environment(plan)}",
        "KillSignal=SIGINT",
        f"TimeoutStopSec={_STOP_S}",
        f"Restart={restart}",
    ]
    if restart != "no":
        lines += ["RestartSec=5", f"RestartPreventExitStatus={BAD_CONFIGURATION}"]
    if plan.user:
        lines += [f"User={plan.user}", f"SupplementaryGroups={' '.join(plan.groups)}", *_closed(plan)]
    else:
        lines.append("NoNewPrivileges=yes")
    if plan.fifo:
        lines += ["LimitRTPRIO=50", "LimitMEMLOCK=infinity"]
    wanted = "multi-user.target" if plan.user else "default.target"
    return "\n".join([*lines, "", "[Install]", f"WantedBy={wanted}", ""])


def _closed(plan: ServicePlan) -> list[str]:
    """Everything that it does not need is taken from it."""
    home = "read-only" if _under_home(plan) else "yes"
    return [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        f"ProtectHome={home}",
        f"ReadWritePaths={' '.join('-' + _quoted(str(path)) for path in plan.writes)}",
        "PrivateTmp=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "LockPersonality=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "UMask=0077",
    ]


def _under_home(plan: ServicePlan) -> bool:
    needed = (plan.folder, plan.config, Path(plan.python), *plan.writes)
    return any(str(path).startswith(("/home/", "/root/", "/run/user/")) for path in needed)


def _environment(plan: ServicePlan) -> str:
    return f"/etc/dexrun/{plan.name}.env" if plan.user else f"%h/.config/dexrun/{plan.name}.env"


def _quoted(word: str) -> str:
    """As systemd takes it for one word, whatever is in it."""
    plain = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w./:@%+,=$-]+", plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def planned(
    arguments: argparse.Namespace, settings: Settings, is_group: Callable[[str], bool]
) -> ServicePlan:
    """What the arguments ask for.

    Raises:
        ServiceError: that cannot be a service.
    """
    name = arguments.name or arguments.what
    if not _NAME.fullmatch(name):
        raise ServiceError(f"--name {name!r}: a name is of a-z, 0-9 and -, at most 31 of them")
    if any(character in str(path) for path in (arguments.config, settings.runs) for character in "\n\r"):
        raise ServiceError("a path with a line break in it cannot stand in a unit")
    config, folder = Path(arguments.config).resolve(), Path.cwd()
    runs = (folder / settings.runs).resolve()
    # From the panel configurations and calibrations are written, and runs begun, with what they may ask for.
    writes = (runs, folder) if arguments.what == "panel" else (runs, folder / "data", folder / "outputs")
    return ServicePlan(
        arguments.what,
        name,
        config,
        folder,
        "" if arguments.own else arguments.user or _somebody(),
        tuple(group for group in _GROUPS if is_group(group)),
        settings.realtime.scheduler == "fifo" and arguments.what != "serve",
        sys.executable,
        writes,
    )


def _somebody() -> str:
    """Who called, also through sudo: a service that moves an arm does not run as root unasked."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    if user == "root":
        raise ServiceError("whose service shall it be? --user NAME (root, if it must be), or --own")
    return user


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _check_user(name: str) -> None:
    if name:
        try:
            pwd.getpwnam(name)
        except KeyError:
            raise ServiceError(f"--user {name!r}: this machine knows no such user") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dexrun service", description=__doc__)
    parser.add_argument("do", choices=("install", "show", "remove"))
    parser.add_argument(
        "what",
        nargs="?",
        default="panel",
        choices=("panel", "run", "serve"),
        help="panel (from which a person begins runs), run (moves the arm when it starts), serve (a policy)",
    )
    parser.add_argument("--config", default="config.toml", help="the configuration")
    parser.add_argument("--name", default="", help="of several on one machine: dexrun-NAME.service")
    parser.add_argument("--user", default="", help="whose rights it has (default: yours)")
    parser.add_argument("--own", action="store_true", help="a service of your own systemd, without sudo")
    parser.add_argument("--to", type=Path, default=None, help="the units' folder (default: systemd's)")
    return parser


def main(argv: Sequence[str], systemctl: Callable[[Sequence[str]], str] | None = None) -> int:
    """Run the command; returns its exit code. `systemctl` returns what went wrong, if anything did."""
    arguments = _parser().parse_args(list(argv))
    call = systemctl or (_systemctl_own if arguments.own else _systemctl)
    folder = arguments.to or (OWN.expanduser() if arguments.own else SYSTEM)
    try:
        plan = planned(arguments, load(["--config", arguments.config]), _is_group)
        _check_user(plan.user)
        if arguments.do == "show":
            say(unit_text(plan))
            return OK
        done = _install(plan, folder, call) if arguments.do == "install" else _remove(plan, folder, call)
    except (ConfigError, ServiceError) as error:
        fail(error, "dexrun service")
        return BAD_CONFIGURATION
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}; as root (sudo), or with --own", "dexrun service")
        return NOT_DONE
    return done


def _install(plan: ServicePlan, folder: Path, call: Callable[[Sequence[str]], str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / plan.unit
    draft = path.with_suffix(".new")
    try:
        draft.write_text(unit_text(plan), encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    say(f"written to {path}\n")
    for words in (("daemon-reload",), ("enable", plan.unit)):
        if trouble := call(words):
            complain(f"dexrun service: systemctl {' '.join(words)}: {trouble}\n")
            return NOT_DONE
    own = " --user" if not plan.user else ""
    say(f"it starts with the machine, and now by systemctl{own} start {plan.unit}\n")
    say(f"what it says: journalctl{own} -u {plan.unit}\n")
    if plan.what == "run":
        say("it MOVES THE ARM as soon as it starts, also when the machine does\n")
    return OK


def _remove(plan: ServicePlan, folder: Path, call: Callable[[Sequence[str]], str]) -> int:
    path = folder / plan.unit
    if not path.exists():
        raise ServiceError(f"there is no {path}")
    if trouble := call(("disable", "--now", plan.unit)):
        complain(f"dexrun service: systemctl disable: {trouble}\n")
        return NOT_DONE
    path.unlink()
    call(("daemon-reload",))
    say(f"{path} is removed\n")
    return OK


def _systemctl(words: Sequence[str], own: Sequence[str] = ()) -> str:
    program = shutil.which("systemctl")
    if program is None:
        return "there is no systemd here"
    done = subprocess.run(  # noqa: S603 - words of our own
        [program, *own, *words], capture_output=True, text=True, check=False, timeout=60
    )
    return " ".join(done.stderr.split()) or "failed" if done.returncode else ""


def _systemctl_own(words: Sequence[str]) -> str:
    return _systemctl(words, ("--user",))
