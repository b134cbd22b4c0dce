"""Excerpts of code in docs/ are in the tree as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXCERPT = re.compile(r"<!-- (?P<file>\S+) -->\n```python\n(?P<code>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#:]+)\)")
RECIPE = ROOT / "docs" / "new-device.md"
EXCERPTS = [(match["file"], match["code"]) for match in EXCERPT.finditer(RECIPE.read_text())]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("file", "code"), EXCERPTS, ids=[f"{index}-{file}" for index, (file, _) in enumerate(EXCERPTS)]
)
def test_an_excerpt_is_in_its_file(file: str, code: str) -> None:
    assert code in (ROOT / file).read_text()


def test_every_block_of_code_says_where_it_is_from() -> None:
    assert len(EXCERPTS) == RECIPE.read_text().count("```python") > 0


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    for match in LINK.finditer(page.read_text()):
        assert (page.parent / match["target"]).exists(), match["target"]
