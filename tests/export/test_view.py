"""What ``dexrun view`` puts before Rerun, read back from the file that it saves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rerun.chunk import RrdReader
from urllib3 import PoolManager, Retry

from dexrun.data.view import main
from tests.export.synthetic import OFFSET, Made, Truth

Run = Callable[..., tuple[Path, list[Truth]]]
JOINT = "/joints/elbow_flex"


def rows(path: Path) -> dict[str, Any]:
    """Per entity: its record batches of time and data."""
    found: dict[str, list[Any]] = {}
    for chunk in RrdReader(path).stream().to_chunks():
        found.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    return found


def column(batches: Any, ending: str) -> list[Any]:
    found = [(batch, name) for batch in batches for name in batch.schema.names if name.endswith(ending)]
    return [value for batch, name in found for value in batch.column(name).to_pylist()]


def seconds(batches: Any) -> Any:
    """The times of a data set's rows."""
    columns = [batch.column("time") for batch in batches if "time" in batch.schema.names]
    return np.concatenate([each.cast("int64").to_numpy() for each in columns]) / 1e9


def test_a_saved_view_holds_the_recording(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planner = [(0.1, "grasp the cube")]
    folder, (truth,) = run(Made(seconds=0.5, lossless=False, masks=True, planner=planner))
    out = tmp_path / "x.rrd"
    assert main([str(folder), "--save", str(out)]) == 0
    assert "x.rrd" in capsys.readouterr().out
    got = rows(out)
    assert len(column(got["/cameras/head/color"], "EncodedImage:blob")) == 16
    assert len(column(got["/cameras/head/depth"], "EncodedDepthImage:blob")) == 16
    assert column(got["/cameras/head/depth"], "EncodedDepthImage:meter")[0] == [1000.0]
    assert len(column(got["/cameras/wrist/color"], "EncodedImage:blob")) == 16
    assert len(got["/cameras/head/mask"]) >= 1
    assert column(got[f"{JOINT}/position"], "Scalars:scalars") == [[q[2]] for q in truth.values["position"]]
    assert column(got[f"{JOINT}/sent"], "Scalars:scalars") == [[q[2]] for q in truth.values["sent"]]
    assert column(got["/force/1"], "Scalars:scalars") == [[f[1]] for f in truth.values["force"]]
    times = np.array(column(got["/force/0"], "time"), "datetime64[ns]").astype(np.int64)
    assert times.tolist() == [stamp + OFFSET for stamp in truth.stamps["force"]]
    assert "grasp the cube" in str(column(got["/events/planner"], "TextLog:text"))
    assert {f"{JOINT}/requested", f"{JOINT}/clipped", "/velocity/gripper", "/load/gripper"} <= set(got)
    assert len(RrdReader(out).blueprints()) == 1


def test_curves_have_names_and_colours_of_their_own(run: Run, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2))
    assert main([str(folder), "--save", str(tmp_path / "x.rrd")]) == 0
    got = rows(tmp_path / "x.rrd")
    words = ("position", "requested", "clipped", "sent")
    colors = [str(column(got[f"{JOINT}/{word}"], "SeriesLines:colors")) for word in words]
    assert len(set(colors)) == len(words)
    assert column(got[f"{JOINT}/sent"], "SeriesLines:names") == [["sent"]]


@pytest.mark.parametrize("kind", ["lerobot-v3", "lerobot-v2.1", "act-hdf5"])
def test_a_data_set_is_shown_as_well(run: Run, exported: Any, tmp_path: Path, kind: str) -> None:
    folder, _ = run(Made(seconds=0.3), Made(seconds=0.5))
    target, _ = exported(folder, kind)
    assert main([str(target), "--save", str(tmp_path / "set.rrd")]) == 0
    got = rows(tmp_path / "set.rrd")
    states = [path for path in got if path.startswith("/joints/") and path.endswith("/state")]
    assert len(states) == 6
    times = seconds(got[states[0]])
    assert (np.diff(times) > 0).all()
    film = {path for path in got if path.startswith("/cameras/")}
    assert film == {"/cameras/head", "/cameras/wrist"}
    assert main([str(target), "--episode", "1", "--save", str(tmp_path / "one.rrd")]) == 0
    one = rows(tmp_path / "one.rrd")
    assert len(column(one[states[0]], "Scalars:scalars")) < len(times)


def test_a_store_that_is_not_shown_says_what_is(run: Run, exported: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _ = run(Made(seconds=0.3, masks=True))
    target, _ = exported(folder, "dexgrasp-zarr")
    assert main([str(target), "--save", str(tmp_path / "x.rrd")]) == 2
    assert "dexrun info says what is in it" in capsys.readouterr().err


def test_one_episode_can_be_chosen(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = run(Made(seconds=0.2), Made(seconds=0.4))
    assert main([str(folder), "--episode", "1", "--save", str(tmp_path / "one.rrd")]) == 0
    assert len(column(rows(tmp_path / "one.rrd")["/cameras/wrist/color"], "EncodedImage:blob")) == 13
    assert main([str(folder), "--episode", "7", "--save", str(tmp_path / "two.rrd")]) == 2
    assert "no episode 7; there is: 0, 1" in capsys.readouterr().err


def test_bad_input_is_said_in_a_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = run(Made(seconds=0.2))
    (tmp_path / "mine.rrd").write_text("mine")
    for run_folder, to in ((folder, "mine.rrd"), (tmp_path / "absent", "x.rrd")):
        assert main([str(run_folder), "--save", str(tmp_path / to)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "mine.rrd").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.rrd", "run"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetched(address: str) -> bytes:
    """The page; the server starts beside the program, so it may take a few tries."""
    retries = Retry(total=None, connect=200, backoff_factor=0.05, backoff_max=0.5)
    with PoolManager(retries=retries) as pool:
        return pool.request("GET", address, timeout=20).data


def listening(ports: list[str]) -> set[tuple[str, str]]:
    """Which of `ports` are listened on at which IPv4 address; IPv6 ones count as ``::``."""
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and str(int(port, 16)) in ports:
                packed = bytes.fromhex(address)[::-1]
                found.add((str(int(port, 16)), socket.inet_ntoa(packed) if family == "tcp" else "::"))
    return found


def interrupted(process: subprocess.Popen[str]) -> int:
    """Its exit code after Ctrl-C; it is gone afterwards in any case."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(60)
    finally:
        process.kill()


def test_a_port_that_is_taken_is_one_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = run(Made(seconds=0.2))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(folder), "--web", "--web-port", str(port)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"port {port}: Address already in use; choose with --web-port" in line


def test_without_a_display_it_says_what_else_there_is(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run(Made(seconds=0.2))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main([str(folder)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "no display for a window" in line
    assert "--web" in line


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """An X server without a screen; without 32-bit visuals, which Mesa's software Vulkan leaves black."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-extension", "Composite"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        try:
            with os.fdopen(read) as number:
                yield f":{number.readline().strip()}"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb and mesa-vulkan-drivers")
def test_the_window_opens_and_ends_with_the_program(run: Run) -> None:
    folder, _ = run(Made(seconds=0.2))
    port = str(free_port())
    command = [sys.executable, "-m", "dexrun", "view", str(folder), "--data-port", port]
    with (
        screen() as display,
        subprocess.Popen(
            command, env={**os.environ, "DISPLAY": display}, stdout=subprocess.PIPE, text=True
        ) as viewer,
    ):
        try:
            assert viewer.stdout is not None
            assert viewer.stdout.readline() == "Ctrl-C ends it\n"
            fetched(f"http://127.0.0.1:{port}/")
            assert listening([port]) == {(port, "127.0.0.1")}
        finally:
            assert interrupted(viewer) == 0
    assert listening([port]) == set()


def test_the_web_page_is_served_until_it_is_ended(run: Run) -> None:
    folder, _ = run(Made(seconds=0.2))
    ports = [str(free_port()), str(free_port())]
    command = [sys.executable, "-m", "dexrun", "view", str(folder), "--web", "--web-port", ports[0]]
    with subprocess.Popen(
        [*command, "--data-port", ports[1]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline()
            assert address.startswith(f"http://localhost:{ports[0]}?url=")
            assert b"rerun" in fetched(f"http://127.0.0.1:{ports[0]}/").lower()
            assert listening(ports) == {(port, "127.0.0.1") for port in ports}
        finally:
            assert interrupted(server) == 0
