"""What stands on the table, and keys of the safety stage that are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.config.load import ConfigError, load, load_tables
from drivers.world.layout import fixed_boxes
from runtime.control_options import ControlOptions
from runtime.limits import SafetyOptions
from runtime.options import Options

CONFIG = str(Path(__file__).parents[2] / "config.toml")


class Tables(Options):
    control: ControlOptions = ControlOptions()
    safety: SafetyOptions = SafetyOptions()


def test_boxes_and_the_simulated_tray_are_kept_off(tmp_path: Path) -> None:
    assert load(["--config", CONFIG], {}).fixed_boxes == fixed_boxes()
    assert load(["--config", CONFIG, "--scene.tray", "false"], {}).fixed_boxes == ()
    file = tmp_path / "mine.toml"
    file.write_text(f"{Path(CONFIG).read_text()}\n[scene]\ntray = false\n[[scene.boxes]]\n"
                    "center_m = [0.3, 0, 0.1]\nsize_m = [0.1, 0.2, 0.2]\n")  # fmt: skip
    (box,) = load(["--config", str(file)], {}).fixed_boxes
    assert (box.center_m, box.size_m) == ((0.3, 0, 0.1), (0.1, 0.2, 0.2))


def test_a_stall_in_ticks_is_refused_and_one_in_a_recording_understood() -> None:
    with pytest.raises(ConfigError, match=r"safety.stall_ticks: this key is gone; give safety.stall_s"):
        load(["--config", CONFIG, "--safety.stall_ticks", "10"], {})
    recorded = {"control": {"rate_hz": 100.0}, "safety": {"stall_ticks": 10}}
    assert load_tables(Tables, recorded, [], "a recording").safety.stall_s == pytest.approx(0.095)
