"""What a run shares with processes beside it: rings, and ``panel.json`` in its folder, which names them.

The run writes what is newest and reads what is asked for; nobody on the other side can make it wait. Whoever
attaches may be killed, stopped or restarted at any time. Several may be attached; they take turns at writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dexrun.panel.shared import PanelCommand, SharedFacts, put_text, shared_layouts, text_of
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.ring import Overwritten, Ring, Sample
from runtime.shared_memory import lives

LINK, VERSION = "panel.json", 1
_TURN_NS, _LOOK_NS = NS_PER_S // 20, NS_PER_S // 1000
"""So long another writer is waited for: its turn takes microseconds, unless it hangs in the middle of it."""


class NoRunError(Exception):
    """There is no run to attach to, or it has gone. One line."""


class PublishedRun:
    """The run's side. `say`, `ticks` and `cameras` are for one thread, the other methods for the loop's.

    Args:
        folder: the run's.

    Attributes:
        ticks: takes the tick records.
        cameras: take pictures, by camera (`dexrun.panel.shared.SharedCamera.layout`).
        lost: commands that were overwritten unread.

    Raises:
        OSError: there is no room in shared memory, or the folder cannot be written; nothing is left behind.
    """

    def __init__(self, folder: Path, facts: SharedFacts) -> None:
        self._path = folder / LINK
        self._rings: dict[str, Ring] = {}
        try:
            for name, (layout, slots) in shared_layouts(facts).items():
                self._rings[name] = Ring.create_shared(layout, slots)
            _write_private(self._path, json.dumps(self._link(folder, facts), indent=2).encode())
        except BaseException:
            self.close()
            raise
        self.ticks = self._rings["ticks"]
        self.cameras = {name: self._rings[f"camera.{name}"] for name in facts.cameras}
        self._commands = self._rings["commands"].reader()
        self._command = self._rings["commands"].blank()
        self._beat = self._rings["heartbeat"].blank()

    def _link(self, folder: Path, facts: SharedFacts) -> dict[str, Any]:
        rings = {name: ring.name for name, ring in self._rings.items()}
        return {
            "version": VERSION,
            "run": folder.resolve().name,
            "pid": os.getpid(),
            **asdict(facts),
            "rings": rings,
        }

    @property
    def lost(self) -> int:
        """See the class."""
        return self._commands.lost

    def say(self, stamp_ns: int, status: Mapping[str, Any]) -> None:
        """Replace what the run says of itself.

        Raises:
            ValueError: it is too long (`dexrun.panel.shared.STATUS_BYTES` as JSON), or no JSON.
        """
        put_text(self._rings["status"], stamp_ns, status)

    def next_command(self) -> PanelCommand | None:
        """The oldest command that was not taken yet; microseconds where there is none.

        Raises:
            ValueError: it makes no sense, and is skipped.
        """
        sample = self._commands.next(self._command)
        if sample is None:
            return None
        return PanelCommand.of(text_of(sample), sample.stamp_ns)

    def answer(self, stamp_ns: int, command: int, error: str = "") -> None:
        """Say what became of a command; without an `error` it was done."""
        put_text(self._rings["answers"], stamp_ns, {"id": command, "ok": not error, "error": error[:300]})

    def heartbeat(self) -> tuple[int, int]:
        """How many pages there are, and when one that has sent a command was heard of last; 0: never."""
        sample = self._rings["heartbeat"].newest(self._beat)
        return (0, 0) if sample is None else (int(sample["pages"]), int(sample["beat_ns"]))

    def looks(self) -> int:
        """How often somebody asked for the status; the same number later says that nobody has."""
        return self._rings["looks"].published

    def looks_at_pictures(self) -> int:
        """The same of pictures."""
        return self._rings["looks.pictures"].published

    def close(self) -> None:
        """The run is over: whoever is attached is told so by `AttachedRun`."""
        self._path.unlink(missing_ok=True)
        for ring in self._rings.values():
            ring.unlink()
            ring.close()


def _write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and for this user's eyes."""
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)


def live_runs(runs: Path) -> list[Path]:
    """The folders under `runs` whose run shares itself and is alive, the newest first."""
    found = []
    for path in runs.glob(f"*/{LINK}"):
        with contextlib.suppress(OSError, NoRunError):
            _read_link(path)
            found.append((path.stat().st_mtime_ns, path.parent))
    return list(dict.fromkeys(folder.resolve() for _, folder in sorted(found, reverse=True)))


def _read_link(path: Path) -> dict[str, Any]:
    try:
        link = json.loads(path.read_bytes())
        rings = dict(link["rings"])
        version = link["version"]
    except FileNotFoundError:
        raise NoRunError(f"{path.parent.name} shares nothing, or has ended") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NoRunError(f"{path} is no link to a run: {type(error).__name__}") from None
    if version != VERSION:
        raise NoRunError(f"{path} is of version {version}; this is {VERSION}")
    if not all(isinstance(name, str) and lives(name) for name in rings.values()):
        raise NoRunError(f"{path.parent.name} has gone without a word")
    return dict(link)


class AttachedRun:
    """The other side, in any process. Belongs to one thread; every call raises `NoRunError` once the run has
    gone.

    Attributes:
        folder: the run's. link: what ``panel.json`` says.
    """

    def __init__(self, folder: Path, link: dict[str, Any], rings: Mapping[str, Ring], clock: Clock) -> None:
        self.folder = folder
        self.link = link
        self._rings = rings
        self._clock = clock
        self._file = (folder / LINK).open("rb")
        self._status = rings["status"].blank()

    @classmethod
    def attach(cls, folder: Path, clock: Clock | None = None) -> AttachedRun:
        """The run of `folder`.

        Raises:
            NoRunError: it shares nothing, or has gone.
        """
        link, rings = _read_link(folder / LINK), {}
        try:
            for name, shared in link["rings"].items():
                rings[name] = Ring.attach(shared)
            return cls(folder, link, rings, clock or RealClock())
        except (OSError, ValueError, LookupError) as error:
            for ring in rings.values():
                ring.close()
            raise NoRunError(f"{folder.name} has gone: {error}") from None

    def check(self) -> None:
        """Nothing, while the run is there."""
        if not lives(self._rings["status"].name):
            raise NoRunError(f"{self.folder.name} has ended")

    def _look(self, name: str) -> None:
        """The run shares pictures only while somebody looks. Two that do so at once are one look."""
        self._rings[name].push(self._clock.now_ns())

    def status(self) -> dict[str, Any] | None:
        """What the run says of itself now; ``None`` before it has said anything."""
        self.check()
        self._look("looks")
        sample = self._rings["status"].newest(self._status)
        return None if sample is None else text_of(sample)

    def ticks_since(self, index: int) -> list[Sample]:
        """Tick records from the ring's `index` on, in order; below 0: the newest alone.

        A record's ``index`` is its place in the ring: ask next from one behind the last. What was overwritten
        is left out.
        """
        self.check()
        return list(_since(self._rings["ticks"], index))

    def newest_picture(self, camera: str, after: int = -1, into: Sample | None = None) -> Sample | None:
        """The newest picture if its ``index`` is greater than `after`; `into` as for `Ring.newest`.

        Its fields: `dexrun.panel.shared.SharedCamera.layout`.

        Raises:
            KeyError: there is no such camera.
        """
        self.check()
        self._look("looks.pictures")
        ring = self._rings[f"camera.{camera}"]
        return ring.newest(into) if ring.published - 1 > after else None

    def send(
        self,
        name: str,
        args: Mapping[str, Any] | None = None,
        client: str = "",
        seen: int | None = None,
    ) -> int:
        """Ask the run for something; returns the number that its answer will have.

        `seen` is the number of the newest stop that the person who asks knows of (``stop`` of `status`; 0:
        none): after a newer one what he asks for is refused, unless it is a stop.

        Raises:
            ValueError: the command is too long.
        """
        self.check()
        with self._turn():
            ring = self._rings["commands"]
            number = ring.published + 1
            said = {"id": number, "name": name, "args": dict(args or {}), "client": client, "seen": seen}
            put_text(ring, self._clock.now_ns(), said)
            return number

    def answers_since(self, index: int) -> tuple[int, list[dict[str, Any]]]:
        """``{id, ok, error}`` from the ring's `index` on, and where to ask next; below 0: from now on."""
        self.check()
        ring = self._rings["answers"]
        if index < 0:
            return ring.published, []
        samples = list(_since(ring, index))
        return (samples[-1].index + 1 if samples else index), [text_of(sample) for sample in samples]

    def beat(self, pages: int, beat_ns: int) -> None:
        """Tell the run how many pages there are, and when one that has sent a command was heard of last."""
        self.check()
        with self._turn():
            self._rings["heartbeat"].push(self._clock.now_ns(), pages=pages, beat_ns=beat_ns)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Alone among those attached. One that hangs in its own turn keeps nobody from stopping an arm."""
        until_ns, mine = self._clock.now_ns() + _TURN_NS, False
        while not mine:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = True
            except OSError:
                if self._clock.now_ns() >= until_ns:
                    break
                self._clock.wait_until_ns(self._clock.now_ns() + _LOOK_NS)
        try:
            yield
        finally:
            if mine:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go; the run does not notice."""
        self._file.close()
        for ring in self._rings.values():
            ring.close()


def _since(ring: Ring, index: int) -> Iterator[Sample]:
    index = ring.published - 1 if index < 0 else index
    while index >= 0:
        try:
            sample = ring.read(index)
        except Overwritten as gap:
            index = max(gap.oldest, index + 1)
            continue
        if sample is None:
            return
        yield sample
        index += 1
