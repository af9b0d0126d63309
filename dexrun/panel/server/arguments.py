"""What a job may be asked with: each argument checks what came, and gives the words of a command line.

No word of a page's can become an option of its own: values follow ``=``, and paths are absolute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dexrun.panel.server.places import BadArgumentError, Places

Check = Callable[[Places, Any], str]
"""What came, as it is written on a command line; raises `BadArgumentError`."""

_TEXT = 500
_EPISODES = re.compile(r"[0-9][0-9, -]{0,199}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


@dataclass(frozen=True, slots=True)
class JobArgument:
    """One argument of a kind of job.

    Attributes:
        name: as the page says it.
        option: of the command; empty: it stands by itself.
        check: see `Check`. many: a list of them. flag: ``true`` gives the option alone.
        needed: whether a job cannot do without.
        kind: what the page lets a person choose from.
    """

    name: str
    option: str
    check: Check
    kind: str
    needed: bool = False
    many: bool = False
    flag: bool = False

    def words(self, places: Places, value: Any) -> list[str]:
        """Its part of the command line.

        Raises:
            BadArgumentError: `value` cannot be used.
        """
        if self.flag:
            if not isinstance(value, bool):
                raise BadArgumentError("true or false")
            return [self.option] if value else []
        if self.many and (not isinstance(value, list) or not 0 < len(value) <= 100):
            raise BadArgumentError("a list")
        values = [self.check(places, each) for each in (value if self.many else [value])]
        if not self.option:
            return values
        return [f"{self.option}={each}" for each in values]


def text(places: Places, said: Any) -> str:
    """A line of a person's."""
    del places
    if not isinstance(said, str) or len(said) > _TEXT or not said.isprintable():
        raise BadArgumentError(f"a line of at most {_TEXT} letters")
    return said


def word(places: Places, said: Any) -> str:
    """A name."""
    del places
    if not isinstance(said, str) or not _WORD.fullmatch(said):
        raise BadArgumentError("a name of letters, digits, '_', '.' and '-'")
    return said


def episodes(places: Places, said: Any) -> str:
    """Numbers of episodes: ``3,7-9``."""
    del places
    if not isinstance(said, str) or not _EPISODES.fullmatch(said):
        raise BadArgumentError("numbers of episodes, such as 3,7-9")
    return said.replace(" ", "")


def number(low: float, high: float, *, whole: bool = True) -> Check:
    """A number from `low` to `high`."""

    def check(places: Places, said: Any) -> str:
        del places
        kinds = (int,) if whole else (int, float)
        if isinstance(said, bool) or not isinstance(said, kinds) or not low <= said <= high:
            raise BadArgumentError(f"a {'whole ' * whole}number from {low:g} to {high:g}")
        return str(said)

    return check


def one_of(names: Sequence[str]) -> Check:
    """One of `names`."""

    def check(places: Places, said: Any) -> str:
        del places
        if said not in names:
            raise BadArgumentError(f"one of {', '.join(names)}")
        return str(said)

    return check


def there(places: Places, said: Any) -> str:
    """A file or folder that is there."""
    return str(places.inside(said))


def policy_type(places: Places, said: Any) -> str:
    """The type of an installed policy; a command that takes a path as well would read any file by it."""
    from runtime import plugins

    return one_of(plugins.installed().names("policy"))(places, said)


def policy_types(places: Places, said: Any) -> str:
    """Some, with commas between them."""
    return ",".join(policy_type(places, each.strip()) for each in text(places, said).split(","))


def checkpoint_or_type(places: Places, said: Any) -> str:
    """A checkpoint that is there, or the type of a policy."""
    return there(places, said) if isinstance(said, str) and "/" in said else policy_type(places, said)


def configuration(places: Places, said: Any) -> str:
    """A configuration."""
    return str(places.configuration(said))


def calibration(places: Places, said: Any) -> str:
    """The file of a named calibration."""
    return str(places.calibration(said))


def serial_port(places: Places, said: Any) -> str:
    """A serial port."""
    return places.serial_port(said)


def new_data(places: Places, said: Any) -> str:
    """Where a data set appears."""
    return str(places.fresh(said, places.new_data))


def new_output(places: Places, said: Any) -> str:
    """Where a training or an evaluation appears."""
    return str(places.fresh(said, places.new_output))


def new_config(places: Places, said: Any) -> str:
    """Where a configuration is written: a name beside the usual one."""
    return str(places.new_configuration(said))
