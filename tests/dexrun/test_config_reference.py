"""The page of all keys says what the models say."""

from pathlib import Path

from dexrun.config.reference import reference


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == reference(), "run: python -m dexrun.config.reference > docs/configuration.md"


def test_a_list_of_tables_is_shown_as_one() -> None:
    lines = reference().splitlines()
    assert "## `[[world.placed]]`" in lines
    assert any(line.startswith("| `placed` | array of tables `[[world.placed]]` |") for line in lines)
