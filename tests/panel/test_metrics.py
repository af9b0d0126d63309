"""What Prometheus is told of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.panel.server_rig import Panel, hear, published, serve

STATUS = {
    "mode": "rollout",
    "state": "running",
    "elapsed_s": 12.5,
    "rate_hz": 29.97,
    "period_error_us": {"p50": 20.0, "p99": 400.0, "max": 900.0},
    "work_us": {"p50": 300.0},
    "horizon": 7,
    "ticks": 375,
    "missed": 1,
    "starved": 2,
    "sensor_rates_hz": {"head": 30.0},
    "force_n": [1.5],
    "clips": {"velocity": 4},
    "faults": {"arm": {"pan.no_reply": 3}},
    "latched": False,
    "driving": "policy",
    "speed": 0.5,
    "servos": {"pan": {"temperature_c": 41, "voltage_v": 7.4, "load": 0.1}},
    "policy": {"type": "act", "name": "outputs/pick/last"},
    "attempts": [{"grasped": True, "completed": False}, {"grasped": True, "completed": True}],
}


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_of_the_run_that_is_followed(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                run.say(1, STATUS)
                await hear(page, "status")
                found = samples((await panel.http.get("/metrics")).text)
                assert (await panel.http.get("/healthz")).status_code == 200
                run.say(2, {**STATUS, "latched": True, "reason": "a person stopped it"})
                await hear(page, "status")
                said = await panel.http.get("/healthz")
                assert said.status_code == 503
                assert "a person stopped it" in said.text
            wanted = {
                ("dexrun_run_up",): 1.0,
                ("dexrun_loop_ticks_total",): 375.0,
                ("dexrun_loop_missed_total",): 1.0,
                ("dexrun_loop_period_error_seconds", "0.99"): 0.0004,
                ("dexrun_sensor_rate_hertz", "head"): 30.0,
                ("dexrun_force_newtons", "0"): 1.5,
                ("dexrun_device_faults_total", "arm", "pan.no_reply"): 3.0,
                ("dexrun_safety_clips_total", "velocity"): 4.0,
                ("dexrun_safety_stopped",): 0.0,
                ("dexrun_safety_speed_ratio",): 0.5,
                ("dexrun_servo_temperature_celsius", "pan"): 41.0,
                ("dexrun_run_info", "policy", "rollout", "act", "running"): 1.0,
                ("dexrun_attempts", "completed"): 1.0,
            }
            assert {key: found.get(key) for key in wanted} == wanted

        serve(tmp_path, script)


def test_without_a_run_it_is_down_and_unhealthy(tmp_path: Path) -> None:
    async def script(panel: Panel) -> None:
        found = samples((await panel.http.get("/metrics")).text)
        assert found == {("dexrun_run_up",): 0.0, ("dexrun_panel_pages",): 0.0}
        assert (await panel.http.get("/healthz")).status_code == 503

    serve(tmp_path, script)
