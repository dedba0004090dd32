"""Commands stand as they can be typed in a checkout: who prints Juinie's own first says where they are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACTIVATE = "$ source .venv/bin/activate"
OURS = re.compile(r"^\$ juinie(-api|-publisher|-stream-gateway)? .*$", re.MULTILINE)
PAGES = sorted((ROOT / "docs").glob("*/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_that_prints_our_commands_activates_their_environment_first(page: Path):
    text = page.read_text()
    first = OURS.search(text)

    assert first is None or ACTIVATE in text[: first.start()], f"{page.name}: {first and first[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_that_prints_juinie_api_says_where_the_database_is(page: Path):
    text = page.read_text()
    first = text.find("\n$ juinie-api ")

    assert first < 0 or "export DATABASE_URL=" in text[:first]


def test_some_pages_print_them():
    assert sum(bool(OURS.search(page.read_text())) for page in PAGES) >= 5
