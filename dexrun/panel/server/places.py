"""Which files and folders a page may name: those below the configured folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dexrun.panel.server.options import PanelServerOptions
from dexrun.setup.calibrate import FOLDER as CALIBRATIONS
from runtime.http_server import RefusedError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SERIAL = re.compile(r"/dev/(tty[A-Za-z0-9._-]+|pts/[0-9]+|serial/by-(id|path)/[A-Za-z0-9@:._+-]+)")
_PATH_LENGTH = 400


class BadArgumentError(Exception):
    """Something that a page asked for cannot be used. One line: what, and what would be accepted."""


class Places:
    """Paths as a page writes them, turned into paths of this machine, or refused.

    A link within a configured folder is the owner's, and is followed; ``..`` is not.

    Attributes:
        roots: the configured folders. runs: that of the runs. usual: the configuration unless another is
            chosen. new_data, new_output: folders for new data sets, and for new trainings and evaluations.
    """

    def __init__(self, options: PanelServerOptions) -> None:
        self._options = options
        self._here = Path.cwd()
        self.roots = [self._absolute(root) for root in options.roots()]
        self.runs, self.usual = self._absolute(options.runs), options.config
        self.new_data, self.new_output = options.data[0], options.data[-1]

    def _absolute(self, path: Path | str) -> Path:
        return Path(os.path.abspath(self._here / path))

    def inside(self, said: object) -> Path:
        """A file or folder that is there, below a configured folder.

        Raises:
            BadArgumentError: it is not.
        """
        path = self._below(said)
        if not path.exists():
            raise BadArgumentError(f"{said}: there is no such file or folder")
        return path

    def fresh(self, said: object, root: Path) -> Path:
        """Where something new goes: a name, below `root`, or a path as `inside` takes it; may be there.

        Raises:
            BadArgumentError: it is neither.
        """
        if isinstance(said, str) and _NAME.fullmatch(said):
            return self._absolute(root) / said
        path = self._below(said)
        if not _NAME.fullmatch(path.name):
            raise BadArgumentError(f"{path.name!r}: a name of letters, digits, '.', '_' and '-'")
        return path

    def _below(self, said: object) -> Path:
        known = ", ".join(str(root) for root in self._options.roots())
        if not isinstance(said, str) or not 0 < len(said) <= _PATH_LENGTH or not said.isprintable():
            raise BadArgumentError(f"a path below one of {known}")
        path = self._absolute(said)
        if ".." in Path(said).parts or not any(root in path.parents for root in self.roots):
            raise BadArgumentError(f"{said}: only what is below one of {known}")
        return path

    def configurations(self) -> list[str]:
        """The configurations that can be chosen, the usual one first."""
        usual = self._options.config
        beside = sorted(self._absolute(usual).parent.glob("*.toml"))
        names = [
            str(path.relative_to(self._here)) if self._here in path.parents else str(path) for path in beside
        ]
        return list(dict.fromkeys([*([str(usual)] if usual.exists() else []), *names]))

    def configuration(self, said: object) -> Path:
        """One of `configurations`.

        Raises:
            BadArgumentError: it is none.
        """
        known = self.configurations()
        if said not in known:
            raise BadArgumentError(
                f"{said!r} is no configuration here; there is {', '.join(known) or 'none'}"
            )
        return self._absolute(str(said))

    def calibrations(self) -> list[str]:
        """The files of the calibrations that were made by name."""
        return [str(path) for path in sorted(CALIBRATIONS.glob("*.json"))]

    def calibration(self, said: object) -> Path:
        """One of `calibrations`.

        Raises:
            BadArgumentError: it is none.
        """
        known = self.calibrations()
        if said not in known:
            raise BadArgumentError(f"{said!r} is no calibration here; there is {', '.join(known) or 'none'}")
        return self._absolute(str(said))

    def checkpoints(self) -> list[str]:
        """The newest and the best checkpoint of every training below the last configured folder.

        The training that ended last comes first.
        """
        root = self._absolute(self.new_output)
        found = [
            path for name in ("last", "best") for path in sorted(root.glob(f"*/{name}")) if path.exists()
        ]
        found.sort(key=lambda path: -path.stat().st_mtime)
        return [self.shown(path) for path in found][:200]

    def evaluations(self) -> list[str]:
        """The evaluations that have a table, by their folders' names, the newest first."""
        tables = list(self._absolute(self.new_output).glob("*/table.txt"))
        tables.sort(key=lambda path: -path.stat().st_mtime)
        return [path.parent.name for path in tables][:200]

    def evaluation(self, name: str) -> Path:
        """The folder of one of `evaluations`.

        Raises:
            RefusedError: there is none of that name.
        """
        if name not in self.evaluations():
            raise RefusedError(404, f"no evaluation {name[:40]!r}")
        return self._absolute(self.new_output) / name

    def new_configuration(self, said: object) -> Path:
        """A file beside the usual configuration.

        Raises:
            BadArgumentError: its name is none of a configuration.
        """
        if not isinstance(said, str) or not _NAME.fullmatch(said) or not said.endswith(".toml"):
            raise BadArgumentError(f"{said!r}: a name that ends in .toml")
        return self._absolute(self._options.config).parent / said

    def serial_port(self, said: object) -> str:
        """A serial port of this machine, or a link to one below a configured folder.

        Raises:
            BadArgumentError: it is neither.
        """
        if isinstance(said, str) and _SERIAL.fullmatch(said):
            return said
        try:
            return str(self.inside(said))
        except BadArgumentError:
            raise BadArgumentError(f"{said!r}: a serial port, such as /dev/ttyACM0") from None

    def shown(self, path: Path) -> str:
        """`path` as a page sees and says it."""
        absolute = self._absolute(path)
        return str(absolute.relative_to(self._here)) if self._here in absolute.parents else str(absolute)
