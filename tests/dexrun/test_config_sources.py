"""Where configuration values come from, and what is said when they cannot be used."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Strict, ValidationError

from dexrun.config.load import load
from dexrun.config.reference import reference
from dexrun.config.sources import (
    ConfigError,
    merge,
    parse_arguments,
    read_environment,
    read_file,
    suggestion,
)
from policies.lerobot.network import FileSaid
from runtime.options import Options, choices
from tests.dexrun.rig import ROOT


def test_arguments_become_paths() -> None:
    config, overrides = parse_arguments(
        ["--config", "lab.toml", "--world.seed", "7", "--prompt=put it away", "--cameras.head.fps", "15"]
    )
    assert config == Path("lab.toml")
    assert overrides == {
        ("world", "seed"): "7",
        ("planner", "prompt"): "put it away",
        ("cameras", "head", "fps"): "15",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["grasp"], "unexpected argument 'grasp'"), (["--mode"], "--mode needs a value")],
)
def test_malformed_arguments_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments(arguments)


def test_a_negative_value_is_a_value() -> None:
    assert parse_arguments(["--world.seed", "-1"])[1] == {("world", "seed"): "-1"}


def test_environment() -> None:
    found = read_environment({"DEXRUN_PLANNER__PROMPT": "x", "HOME": "/"})
    assert found == {("planner", "prompt"): "x"}


def test_merge_leaves_its_input_alone() -> None:
    table = {"world": {"seed": 1, "objects": 3}}
    merged = merge(table, {("world", "seed"): "7", ("grasp", "home"): "[0.0, 1.5]"}, "environment")
    assert merged == {"world": {"seed": "7", "objects": 3}, "grasp": {"home": [0.0, 1.5]}}
    assert table == {"world": {"seed": 1, "objects": 3}}


def test_merge_through_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^environment: mode\.x: mode is not a table"):
        merge({"mode": "grasp"}, {("mode", "x"): "1"}, "environment")


def test_malformed_array_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^command line: grasp\.home = \[1,: not a TOML value"):
        merge({}, {("grasp", "home"): "[1,"}, "command line")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_file(tmp_path / "none.toml")


def test_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("mode = \n")
    with pytest.raises(ConfigError, match=r"not valid TOML.*line 1"):
        read_file(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a = " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("arm = " + "{a=" * 400 + "1" + "}" * 400, "nested too deeply"),
        ("[control]\nrate_hz = " + "9" * 5_000, "has 5000 digits"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_a_trap_is_one_line(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "trap.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=why) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_a_device_that_never_ends_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: larger than 1 MiB"):
        read_file(Path("/dev/zero"))


def test_a_long_value_is_cut_in_the_line() -> None:
    with pytest.raises(ConfigError) as caught:
        merge({}, {("arm", "touch"): "[" * 5_000}, "command line")
    assert len(str(caught.value)) < 250


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_text("mode = 'grasp'\r\n[world]\r\nseed = 3\r\n", encoding="utf-8-sig", newline="")
    assert read_file(path) == {"mode": "grasp", "world": {"seed": 3}}


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text("mode = 'grasp'\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"wide\.toml: cannot be read: 'utf-8' codec can't decode"):
        read_file(path)


def test_suggestion() -> None:
    assert suggestion("sed", ["seed", "objects"]) == "; did you mean 'seed'?"
    assert suggestion("zzz", ["seed", "objects"]) == "; known: objects, seed"


def _tables(table: type[Options]) -> Iterator[type[Options]]:
    for below in table.__subclasses__():
        yield below
        yield from _tables(below)


def _numbers() -> Iterator[tuple[type[Options], str, int | float | bool]]:
    """Every number that a key of any table can have by choice, and every number that is a default."""
    reference()  # loads the tables of all parts
    for table in dict.fromkeys(_tables(Options)):
        if inspect.isabstract(table) or issubclass(table, FileSaid):
            continue
        for name, key in table.model_fields.items():
            if Strict() in key.metadata:
                continue  # in a JSON file, where numbers are no text
            values = [*choices(key.annotation), key.default]
            yield from ((table, name, value) for value in values if isinstance(value, int | float))


def test_a_number_is_taken_as_text_in_every_table() -> None:
    numbers = list(_numbers())
    assert any(name == "baudrate" and value == 38_400 for _, name, value in numbers)
    refused = []
    for table, name, value in numbers:
        try:
            table.model_validate({name: str(value)})
        except ValidationError as error:
            wrong = [one["msg"] for one in error.errors() if one["loc"][:1] == (name,)]
            refused += [(table.__name__, name, value, why) for why in wrong]
    assert not refused


def test_a_choice_of_numbers_is_made_on_the_command_line_and_in_the_environment(tmp_path: Path) -> None:
    file = str(ROOT / "config.toml")
    given = ["--config", file, "--runs", str(tmp_path)]
    assert load([*given, "--arm.baudrate", "500000"], {}).arm.baudrate == 500_000
    assert load(given, {"DEXRUN_ARM__BAUDRATE": "115_200"}).arm.baudrate == 115_200
    with pytest.raises(ConfigError, match=r"arm\.baudrate = '9600': input should be 1000000, 500000, "):
        load([*given, "--arm.baudrate", "9600"], {})


def test_a_variable_with_one_underscore_too_few_is_told_of_the_other() -> None:
    given = ["--config", str(ROOT / "config.toml")]
    with pytest.raises(
        ConfigError, match=r"world_seed: unknown key; did you mean DEXRUN_WORLD__SEED[?] Two under"
    ):
        load(given, {"DEXRUN_WORLD_SEED": "3"})
    with pytest.raises(ConfigError, match=r"did you mean DEXRUN_PLANNER__SCENE_READER__PORT[?]"):
        load(given, {"DEXRUN_PLANNER__SCENE_READER_PORT": "3"})
    with pytest.raises(ConfigError, match=r"planer: unknown key; did you mean 'planner'[?]"):
        load(given, {"DEXRUN_PLANER__MODEL": "m"})


@pytest.mark.parametrize(
    ("mode", "given", "rate_hz"),
    [
        ("teleop", ["--teleop.rate_hz", "100"], 100.0),
        ("teleop", [], 30.0),
        ("grasp", ["--teleop.rate_hz", "100"], 30.0),
    ],
)
def test_teleoperation_may_have_a_rate_of_its_own(mode: str, given: list[str], rate_hz: float) -> None:
    settings = load(["--config", str(ROOT / "config.toml"), "--mode", mode, *given], {})
    assert settings.control.rate_hz == rate_hz
    again = type(settings).model_validate(settings.model_dump(mode="json"))
    assert again.control.rate_hz == rate_hz
