"""``--policy.checkpoint FOLDER``: what the folder says, and who counts more."""

import json
from pathlib import Path
from typing import Any

import pytest

from dexrun.config.load import ConfigError, dump, load
from tests.dexrun.rig import ROOT

SAID: dict[str, Any] = {
    "type": "act",
    "rate_hz": 10.0,
    "cameras": ["head", "wrist"],
    "image_width": 128,
    "image_height": 96,
    "units": {"convention": "rad"},
    "keys": {"state": {"state": ["elbow_flex", "gripper"]}},
    "shape": {"state_size": 2, "action_size": 6, "chunk": 20, "heads": 4},
}


def checkpoint(folder: Path, said: Any = SAID) -> Path:
    made = folder / "checkpoints" / "000400"
    made.mkdir(parents=True)
    (made / "policy.json").write_text(json.dumps(said))
    (made / "model.safetensors").write_bytes(b"weights")
    (folder / "last").symlink_to("checkpoints/000400")
    return folder / "last"


def lines(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(["--config", str(ROOT / "config.toml"), *arguments], {})
    return str(caught.value)


def test_a_folder_runs_with_no_further_key_although_the_file_has_another_policy(tmp_path: Path) -> None:
    last = checkpoint(tmp_path / "pick")
    settings = load(["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(last)], {})
    table: Any = settings.policy
    assert (table.type, table.rate_hz, table.cameras) == ("act", 10.0, ("head", "wrist"))
    assert table.shape.chunk == 20
    assert table.shape.hidden == 512  # as without a checkpoint
    # the very checkpoint, whatever `last` is when a process of its own reads it
    assert table.checkpoint == str(tmp_path / "pick/checkpoints/000400/model.safetensors")
    assert json.loads(dump(settings))["policy"]["keys"]["state"] == {"state": ["elbow_flex", "gripper"]}


def test_a_lerobot_server_has_its_name_of_before(tmp_path: Path) -> None:
    given = ["--config", str(ROOT / "config.toml"), "--policy.type", "lerobot"]
    assert load([*given, "--policy.port", "8080"], {}).policy.type == "lerobot_grpc"
    assert ": policy.path is required: LeRobot's pretr" in lines("--policy.type", "lerobot")
    told = lines("--policy.type", "lerobot", "--policy.path", str(tmp_path))
    assert told.startswith(f"command line: policy.path = {str(tmp_path)!r}: there is no config.json in it")


def own_file(folder: Path, policy: str) -> Path:
    """config.toml with another [policy]."""
    before, _, rest = (ROOT / "config.toml").read_text().partition("[policy]")
    file = folder / "own.toml"
    file.write_text(f"{before}[policy]\n{policy}\n[grasp]{rest.partition('[grasp]')[2]}")
    return file


def test_what_a_person_says_counts_more_wherever_it_is_said(tmp_path: Path) -> None:
    last = checkpoint(tmp_path / "pick")
    file = own_file(tmp_path, 'type = "act"\ncameras = ["wrist"]\nkeys.image.order = "bgr"')
    arguments = ["--config", str(file), "--policy.checkpoint", str(last), "--policy.shape.heads", "2"]
    table: Any = load(arguments, {"DEXRUN_POLICY__RATE_HZ": "15"}).policy
    assert (table.rate_hz, table.cameras, table.shape.heads) == (15.0, ("wrist",), 2)
    assert table.keys.image.order == "bgr"
    assert table.keys.state == {"state": ("elbow_flex", "gripper")}
    assert table.image_width == 128


def test_of_another_policys_table_what_all_policies_have_stays(tmp_path: Path) -> None:
    last = checkpoint(tmp_path / "pick")
    own = 'type = "geometric"\nworker = "process"\nstop_on_implausible = true\nrate_hz = 50\nsqueeze = 0.1'
    file = own_file(tmp_path, own)
    table: Any = load(["--config", str(file), "--policy.checkpoint", str(last)], {}).policy
    assert (table.worker, table.stop_on_implausible, table.rate_hz) == ("process", True, 10.0)


def test_serve_takes_it_too(tmp_path: Path) -> None:
    last = checkpoint(tmp_path / "pick")
    arguments = ["--config", str(ROOT / "config.toml"), "--serve.policy.checkpoint", str(last)]
    settings = load(arguments, {})
    assert settings.serve.policy is not None
    assert (settings.serve.policy.type, settings.policy.type) == ("act", "geometric")


@pytest.mark.parametrize("type_first", [True, False])
def test_one_source_that_says_two_types_is_refused(tmp_path: Path, type_first: bool) -> None:
    last = str(checkpoint(tmp_path / "pick"))
    words = [["--policy.type", "dexgrasp"], ["--policy.checkpoint", last]]
    told = lines(*words[not type_first], *words[type_first])
    assert told == (
        f"command line: policy.checkpoint = {last!r}: it is of a policy of type 'act', and policy.type is "
        "'dexgrasp'"
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({**SAID, "device": "cuda"}, "device is not a checkpoint's to say; it may say type, rate_hz, "),
        ({**SAID, "checkpoint": "/etc/passwd"}, "checkpoint is not a checkpoint's to say"),
        ({"type": "groot"}, "a policy of type 'groot' has no checkpoint's folder"),
        ({"type": "nowhere"}, "type = 'nowhere': "),
        ([], "no table with the policy's type"),
        ({**SAID, "rate_hz": "fast"}, "policy.rate_hz = 'fast': give a number"),
        ({**SAID, "shape": {"hiden": 4}}, "policy.shape.hiden: unknown key; did you mean 'hidden'?"),
    ],
)
def test_what_a_checkpoint_may_not_say_is_told_with_its_file(tmp_path: Path, said: Any, told: str) -> None:
    last = checkpoint(tmp_path / "pick", said)
    line = lines("--policy.checkpoint", str(last))
    assert line.startswith(f"{last}/policy.json: ")
    assert told in line
    assert len(line.splitlines()) == 1


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    checkpoint(tmp_path / "pick")
    told = lines("--policy.checkpoint", str(tmp_path / "pick"))
    assert told.endswith(f"a training's folder; give {tmp_path / 'pick/last'} or one of its checkpoints")
    told = lines("--policy.checkpoint", str(tmp_path / "none"))
    assert told.endswith("(it has no policy.json), and policy.type = 'geometric' takes no other")
    (tmp_path / "pick/last/model.safetensors").unlink()
    told = lines("--policy.checkpoint", str(tmp_path / "pick/last"))
    assert told.endswith("there is no model.safetensors in it")
