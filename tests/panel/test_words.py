"""The page's words: each in every language, and none that is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "dexrun" / "panel" / "page"
_PLACE = re.compile(r"\{\w*\}")
_ENTRY = re.compile(
    r"^  (?:\"([\w-]+)\"|(\w+)): \[\s*(\".*?\"),\s*(\".*?\"),?\s*\],$", re.MULTILINE | re.DOTALL
)
_SAID = re.compile(
    r'say\("([\w-]+)"|data-(?:word|title|placeholder)"?[=:]\s?"([\w-]+)"'
    r'|card\("(\w+)"|\bword: "(\w+)"|line\("(\w+)"'
)


def words() -> dict[str, tuple[str, str]]:
    text = (PAGE / "words.js").read_text(encoding="utf-8")
    return {match[1] or match[2]: (match[3], match[4]) for match in _ENTRY.finditer(text)}


def test_every_word_is_there_in_both_languages_with_the_same_places() -> None:
    text = (PAGE / "words.js").read_text(encoding="utf-8")
    known = words()
    assert len(known) > 200
    assert len(known) == len(re.findall(r"^  [\w\"-]+: \[", text, re.MULTILINE))
    for key, (english, chinese) in known.items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), key
        if not key.startswith("like_"):
            assert len(english) > 2, key
            assert re.search(r"[\u4e00-\u9fff：]", chinese), key


def test_what_the_page_says_is_in_the_table() -> None:
    known, lacking = words(), set()
    for path in (*PAGE.glob("*.js"), PAGE / "index.html"):
        for match in _SAID.finditer(path.read_text(encoding="utf-8")):
            word = next(group for group in match.groups() if group)
            if word not in known:
                lacking.add((path.name, word))
    assert not lacking


def test_every_argument_and_kind_of_a_job_has_a_word() -> None:
    from dexrun.panel.server.job_kinds import KINDS

    known = words()
    for kind in KINDS.values():
        assert f"job_{kind.name}" in known
        for argument in kind.as_json()["arguments"]:
            assert f"arg_{argument['name']}" in known, (kind.name, argument)


def asked_by_commands() -> Iterator[str]:
    """What the set-up asks and what its choices mean, as the code has it; ``{}`` for what is filled in."""
    asking = {"confirm": "", "ask": "", "_alone": "", "_choice": " [{}]"}
    for path in (ROOT / "dexrun" / "setup").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        given = {  # a question, or choices, that have a name
            each.targets[0].id: each.value
            for each in ast.walk(tree)
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
        }
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if call.func.attr not in asking:
                continue
            for argument in call.args:
                value = given.get(argument.id, argument) if isinstance(argument, ast.Name) else argument
                if isinstance(value, ast.Constant | ast.JoinedStr):
                    yield template(value) + asking[call.func.attr]
                elif isinstance(value, ast.Dict):
                    yield from (template(each) for each in value.values if each is not None)


def template(value: ast.expr) -> str:
    if isinstance(value, ast.JoinedStr):
        return "".join(template(each) for each in value.values)
    return str(value.value) if isinstance(value, ast.Constant) else "{}"


def test_what_the_commands_ask_is_there_in_chinese() -> None:
    entry = re.compile(r"^  \[\s*((?:\".*?\")|(?:'.*?')),\s*(\".*?\"),?\s*\],$", re.MULTILINE)
    text = (PAGE / "asked.js").read_text(encoding="utf-8")
    known = {english[1:-1]: chinese for english, chinese in entry.findall(text)}
    assert len(known) == len(re.findall(r"^  \[", text, re.MULTILINE))
    for english, chinese in known.items():
        assert set(_PLACE.findall(chinese)) <= set(_PLACE.findall(english)), english
        assert re.search(r"[\u4e00-\u9fff]", chinese), english
    asked = {each for each in asked_by_commands() if re.search(r"[a-z]", _PLACE.sub("", each))}
    assert len(asked) > 12
    assert "{} [{}]" not in asked
    assert asked - {_PLACE.sub("{}", each) for each in known} == set()


def test_nothing_of_the_page_is_inline_or_elsewhere() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"\bon\w+=|<style|style=", html) == []
    for path in (*PAGE.glob("*.js"), *PAGE.glob("*.css"), PAGE / "index.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"https?://[\w.]+\.\w", text), path.name
        assert "innerHTML" not in text, path.name
    for name in ("uPlot.LICENSE", "three.LICENSE", "README.md"):
        assert (PAGE / "vendor" / name).stat().st_size > 500
