"""An environment for subprocesses in which torch cannot be imported, as if it were not installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LEARNED = ("torch", "torchvision", "diffusers", "safetensors", "transformers")
HOOK = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LEARNED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def python_path(folder: Path) -> str:
    """``PYTHONPATH`` of a Python that has nothing of the extra ``learned``; `folder` is made."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    return os.pathsep.join([str(folder), *(path for path in sys.path if path)])
