from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexrun.episodes import keys
from dexrun.episodes.keys import KeyParser, open_keys
from runtime.clock import RealClock


@given(st.binary(max_size=60))
def test_any_bytes_are_taken(data: bytes) -> None:
    whole = KeyParser().feed(data)
    assert set(whole) <= {
        *keys._ACTIONS,
        "pause",
        "take",
        "instruct",
        "estop",
        "reset",
        "go_on",
        *(f"jog.{what}" for what in keys.JOG_KEYS.values()),
    }


@given(
    st.lists(
        st.sampled_from(
            [b" ", b"s", b"f", b"d", b"q", b"w", b"\x1b[C", b"\x1b[D", b"\x1bOC", b"\x1b[1;5A", b"\x1b[[D"]
        )
    ),
    st.data(),
)
def test_pieces_make_no_difference(presses: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(presses)
    parser, at, found = KeyParser(), 0, []
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += parser.feed(stream[at : at + size])
        at += size
    assert found == KeyParser().feed(stream)
    arrows = {b"\x1b[C": "toggle", b"\x1b[D": "discard", b"\x1bOC": "toggle"}
    simple = {b" ": "toggle", b"s": "success", b"f": "failure", b"d": "discard", b"q": "quit"}
    assert found == [{**arrows, **simple}[each] for each in presses if each in {**arrows, **simple}]


def test_a_locked_shift_key_makes_no_difference() -> None:
    """To the stop above all."""
    letters = "sfdqpergit" + "".join(each for each in keys.JOG_KEYS if each.isalpha())
    found = KeyParser().feed(letters.upper().encode())
    assert found[:6] == ["success", "failure", "discard", "quit", "pause", "estop"]
    assert found == KeyParser().feed(letters.encode())
    assert len(found) == len(letters)


def test_function_keys_are_no_letters() -> None:
    """F1 to F5 of Linux's own console end in a letter of ours: F4 would discard, F5 stop the arm."""
    pressed = b"".join(b"\x1b[[" + letter for letter in (b"A", b"B", b"C", b"D", b"E"))
    parser = KeyParser()
    assert KeyParser().feed(pressed + b"s") == ["success"]
    assert [each for at in range(len(pressed)) for each in parser.feed(pressed[at : at + 1])] == []


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_keys_arrive_through_a_terminal(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = terminal
    pressed: list[str] = []
    monkeypatch.setattr(keys, "press", lambda episodes, command, extra, stopping: pressed.append(command))
    before = termios.tcgetattr(theirs)
    clock = RealClock()

    async def main() -> None:
        with open_keys(None, theirs) as listening:  # type: ignore[arg-type]
            assert listening
            during = termios.tcgetattr(theirs)
            assert not during[3] & (termios.ICANON | termios.ECHO)
            assert during[3] & termios.ISIG  # Ctrl-C stays what it is
            os.write(ours, b" w\x1b[")
            os.write(ours, b"Dsq")
            while len(pressed) < 4:
                await clock.sleep_until_ns(clock.now_ns() + 1_000_000)

    clock.run(main)
    assert pressed == ["toggle", "discard", "success", "quit"]
    assert termios.tcgetattr(theirs) == before


def test_without_a_terminal_nobody_listens(tmp_path: object) -> None:
    read, write = os.pipe()
    clock = RealClock()

    async def main() -> None:
        with open_keys(None, read) as listening:  # type: ignore[arg-type]
            assert not listening

    clock.run(main)
    os.close(read)
    os.close(write)
