"""What the pages say about themselves is true: records, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HEAD = re.compile(r"# (\d{4}) (.+)\n\nStatus: ((?:accepted|superseded by \d{4}), \d{4}-\d\d-\d\d)\n")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_a_decision_says_its_status_and_is_in_the_index(record: Path) -> None:
    head = HEAD.match(record.read_text())
    assert head, "it begins with: # NNNN Title, an empty line, Status: accepted, YYYY-MM-DD"
    assert record.name.startswith(head[1])
    status, date = head[3].rsplit(", ", 1)
    line = f"| [{head[1]}]({record.name}) {head[2]} | {status} | {date} |"
    assert line in (ROOT / "docs" / "decisions" / "README.md").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
