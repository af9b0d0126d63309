"""``dexrun panel``: the page in the browser, without a run or beside one."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from loguru import logger

from dexrun.config.panel_options import SERVER_PACKAGES
from dexrun.config.sources import ConfigError
from dexrun.exit_codes import BAD_CONFIGURATION, OK
from dexrun.panel.server.options import PanelServerOptions, link_of, new_token
from dexrun.printing import fail, say
from dexrun.signals import Ending
from runtime.clock import Clock, RealClock
from runtime.masking import know_secret, secret_of
from runtime.packages import missing

_DESCRIPTION = """\
Serve the panel: one page that shows a run live and drives it, starts runs, and looks after data sets,
training, evaluation and set-up. It shows whichever run under --runs is alive. Ctrl-C ends it, and what it
has started.
"""
_EPILOG = """\
examples:
  dexrun panel                         on this machine alone: http://127.0.0.1:8470/
  dexrun panel --config my-arm.toml    runs are started with that configuration
  dexrun panel --host 0.0.0.0          for a phone or another laptop, by the link with a token that is printed
"""
TOKEN_VARIABLE = "DEXRUN_PANEL_TOKEN"  # noqa: S105 - its name


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun panel",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=Path, help="what runs are started with (config.toml); its [panel] table holds here")
    add("--port", type=int, help="where to listen, 0 for any (8470)")
    add("--host", help="127.0.0.1 for this machine alone; any other one needs the printed token")
    add("--runs", type=Path, metavar="DIR", help="the folder of runs (the configuration's)")
    add("--data", type=Path, metavar="DIR", action="append", help="a folder of data sets (data, outputs)")
    add("--language", choices=("auto", "en", "zh"), help="of the page")
    add("--name", metavar="HOST", action="append", help="what this machine is called besides (robot.lab)")
    add("--run", type=Path, metavar="DIR", help="show the run of this folder and no other")
    return parser.parse_args(list(arguments))


def _options(given: argparse.Namespace) -> PanelServerOptions:
    """The command line over the configuration.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    known = {key: value for key, value in vars(given).items() if value is not None}
    if name := known.pop("name", None):
        known["names"] = tuple(name)
    if "data" in known:
        known["data"] = tuple(known["data"])
    options = replace(_configured(given.config), **known)
    if not 0 <= options.port < 65_536:
        raise ConfigError(f"--port {options.port}: 0 to 65535")
    return replace(options, token=_token(options.host))


def _token(host: str) -> str:
    """One that stays the same from start to start, if the environment has one; else a new one.

    Raises:
        ConfigError: it is too short.
    """
    fixed = secret_of(TOKEN_VARIABLE)
    if fixed and not re.fullmatch(r"[A-Za-z0-9_-]{16,200}", fixed):
        raise ConfigError(f"{TOKEN_VARIABLE}: 16 to 200 letters, digits, '-' and '_'")
    needed = new_token(host)
    return know_secret(fixed or needed) if needed else ""


def _configured(path: Path | None) -> PanelServerOptions:
    options = PanelServerOptions()
    if path is None and not options.config.exists():
        return options
    from dexrun.config.load import load

    try:
        settings = load(["--config", str(path or options.config)])
    except ConfigError as error:
        if path is not None:
            raise
        fail(f"{options.config} is left aside: {error}", "dexrun panel")  # nobody has named it
        return options
    panel = settings.panel
    port = panel.port if panel.port >= 0 else options.port
    return replace(options, runs=settings.runs, host=panel.host, port=port, language=panel.language)


def main(arguments: Sequence[str], clock: Clock | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        given = _parsed(arguments)
        if why := missing("dexrun panel", SERVER_PACKAGES, "panel"):
            raise ConfigError(why)
        options = _options(given)
    except ConfigError as error:
        fail(error, "dexrun panel")
        return BAD_CONFIGURATION
    logger.remove()
    logger.add(sys.stderr, format="{message}", level="INFO", diagnose=False)
    with Ending() as ending:
        return serve(options, clock or RealClock(), lambda: ending.next())


def serve(options: PanelServerOptions, clock: Clock, ended: Callable[[], Awaitable[object]]) -> int:
    """Serve until `ended`; returns the exit code."""
    from dexrun.panel.server.application import PanelServer, listen

    try:
        listening = listen(options.host, options.port)
    except OSError as error:
        fail(f"{options.host}:{options.port}: {error.strerror or error}", "dexrun panel")
        return BAD_CONFIGURATION
    server = PanelServer(options, clock)
    clock.run(server.run, listening, lambda: _announce(options, server.port), ended)
    return OK


def _announce(options: PanelServerOptions, port: int) -> None:
    link = link_of(options, port)
    say(f"panel at {link} (Ctrl-C ends it)\n")
    if options.token and sys.stdout.isatty():
        import segno

        segno.make(link).terminal(sys.stdout, compact=True)
    sys.stdout.flush()
