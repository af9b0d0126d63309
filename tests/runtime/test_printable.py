from __future__ import annotations

import pytest

from runtime.printable import line, printable

TITLE, CLEAR = "\x1b]0;owned\x07", "\x1b[2J"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("put the cube\tin the tray\n", "put the cube\tin the tray\n"),
        ("würfel 红色 \U0001f9f1", "würfel 红色 \U0001f9f1"),
        (TITLE + CLEAR, "\\x1b]0;owned\\x07\\x1b[2J"),
        ("safe\r\x9b31mred", "safe\\x0d\\x9b31mred"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("\ud800\x00\x7f", "\\ud800\\x00\\x7f"),
    ],
)
def test_nothing_commands_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text, colours=True) == shown
    assert printable(shown) == shown


def test_only_the_logs_own_colours_stay() -> None:
    assert printable(f"\x1b[32m12:00\x1b[0m {CLEAR}", colours=True) == "\x1b[32m12:00\x1b[0m \\x1b[2J"
    assert line("one\ntwo\x1b[0m") == "one two\\x1b[0m"
