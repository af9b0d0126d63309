"""The packages of ``examples/`` are installed by pip alone, and used by command lines alone."""

from __future__ import annotations

from tests.examples.conftest import Dexrun


def test_plugins_lists_them_with_their_packages(dexrun: Dexrun) -> None:
    done = dexrun("--plugins")
    assert done.returncode == 0, done.stderr
    lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert "camera synthetic dexrun-synthetic-camera 1.0.0 synthetic_camera:SyntheticTable" in lines
