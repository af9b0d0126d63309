"""What ``docs/plugins.md`` shows of ``examples/``: ``python -m tests.examples.page`` puts it in anew."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "plugins.md"
SHOWN = re.compile(r"<!-- (examples/\S+) -->\n```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def shown() -> dict[str, str]:
    """The files that the page shows, by their path, as it shows them."""
    return {path: text for path, _, text in SHOWN.findall(PAGE.read_text())}


def included() -> str:
    """The page with the files as they are."""

    def put(found: re.Match[str]) -> str:
        path, language, _ = found.groups()
        return f"<!-- {path} -->\n```{language}\n{(ROOT / path).read_text()}```\n"

    return SHOWN.sub(put, PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(included())
