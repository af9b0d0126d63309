"""``dexrun serve`` from the command line."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dexrun.__main__ import main
from dexrun.config.load import load
from dexrun.serve.command import described, expand, policy_maker, served
from policies.remote.config import LerobotOptions
from runtime.interfaces import PolicyError
from tests.policies.lerobot_rig import played
from tests.remote.support import connected, observation

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "config.toml")
EXAMPLE = ROOT / "docs" / "examples" / "remote-policy.toml"


def test_short_options_are_keys_of_the_serve_table() -> None:
    given = ["--config", "c.toml", "--protocol", "act", "--port=5", "--insecure", "--policy.device", "cpu"]
    assert expand(given) == [
        "--config",
        "c.toml",
        "--serve.protocol",
        "act",
        "--serve.port=5",
        "--serve.insecure",
        "true",
        "--policy.device",
        "cpu",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "smtp"], "gr00t"),
        (["--host", "0.0.0.0"], "token_env"),  # noqa: S104 - refused
        (["--policy.type", "groot"], "serve a local one"),
        (["--serve.token_env", "DEXRUN_TEST_ABSENT"], "DEXRUN_TEST_ABSENT is not set"),
        (["--cameras.head.extrinsics", "{ }"], "extrinsics"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--config", CONFIG, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize("protocol", ["act", "lerobot"])
def test_a_chunk_without_names_has_one_key(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["--serve.keys.action", '{ arm = ["shoulder_pan"], hand = ["gripper"] }']
    assert main(["serve", "--config", CONFIG, "--protocol", protocol, *keys]) == 2
    error = capsys.readouterr().err
    line = f"dexrun serve: serve.keys.action takes one key with protocol {protocol!r}, not arm, hand"
    assert error.splitlines()[-1] == line


def test_help_is_given() -> None:
    assert main(["serve", "--help"]) == 0
    assert main(["serve"]) == 2


def test_the_configured_policy_is_served_until_sigterm() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dexrun", "serve", "--config", CONFIG, "--protocol", "openpi"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"serving geometric as openpi at ws://127\.0\.0\.1:(\d+)\n", line)
        assert found, line
        with connected("openpi", int(found.group(1))) as remote:
            remote.warm_up()
            # the usual keys have no depth, without which this policy says what it lacks
            with pytest.raises(PolicyError, match=r"mask|depth"):
                remote.infer(observation())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def test_one_file_serves_both_ends() -> None:
    settings = load(["--config", str(EXAMPLE)], {})
    assert served(settings).type == "geometric"
    options = described(settings)
    assert options.resolved_keys() == settings.policy.keys
    assert options.resolved_units() == settings.policy.units
    own = load(["--config", str(EXAMPLE), "--serve.units", "lerobot_degrees"], {})
    assert described(own).resolved_units().convention == "lerobot_degrees"


def test_one_entry_of_the_units_leaves_the_others_as_the_protocol_has_them() -> None:
    given = ["--config", CONFIG, "--policy.type", "lerobot_grpc", "--serve.protocol", "lerobot"]
    given += ["--policy.units.reversed", "['elbow_flex']", "--serve.units.gripper_open_high", "false"]
    settings = load(given, {})
    assert isinstance(settings.policy, LerobotOptions)
    client, server = settings.policy.units, described(settings).resolved_units()
    assert (client.convention, client.reversed) == ("lerobot_degrees", ("elbow_flex",))
    assert (server.convention, server.gripper_open_high) == ("lerobot_degrees", False)
    other = load(["--config", CONFIG, "--policy.type", "openpi", "--serve.protocol", "lerobot"], {})
    assert described(other).resolved_units().convention == "rad"


def test_two_halves_are_served_one_by_one() -> None:
    halves = ["--serve.policy.slow.type", "vlm", "--serve.policy.fast.type", "lift"]
    settings = load(["--config", CONFIG, "--serve.policy.type", "slow_fast", *halves], {})
    with pytest.raises(PolicyError, match=r"'slow_fast' is not served: .* serve its slow half, whose client"):
        policy_maker(settings)


def test_that_a_policy_sees_no_motion_behind_a_server_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    said = {}
    for name in ("act", "diffusion"):
        folder = played(name, tmp_path).folder
        words = ["--policy.type", "lerobot", "--policy.path", str(folder), "--policy.keys.cameras"]
        settings = load(["--config", CONFIG, *words, '{ head = "front", wrist = "wrist" }'], {})
        make = policy_maker(settings)
        for _client in range(2):
            make().close()
        said[name] = capsys.readouterr().err
    assert said["act"] == ""
    assert said["diffusion"].count("\n") == 1
    assert "looks at 2 instants, and a client sends the present alone" in said["diffusion"]


@pytest.mark.parametrize(("steps", "own"), [("1", False), ("2", True)])
def test_a_network_that_looks_back_is_made_for_each_client(steps: str, own: bool) -> None:
    given = ["--policy.type", "dexgrasp", "--policy.shape.observation_steps", steps]
    assert load(["--config", CONFIG, *given], {}).policy.remembers_episode is own
