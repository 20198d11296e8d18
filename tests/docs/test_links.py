"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
TRUST = "#one-installation-is-one-circle-of-trust"


@cache
def anchors(page: Path) -> frozenset[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_finds_its_file_and_its_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("install.md", "## Other namespaces"),
        ("install.md", "## Who reaches whom"),
        ("install.md", "## From outside, with TLS"),
        ("adapt.md", "- **Namespaces**"),
    ],
)
def test_where_namespaces_are_told_of_it_is_told_that_they_part_no_tenants(
    page: str, heading: str
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = re.split(r"\n## |\n- \*\*", text.partition(heading)[2])[0]
    assert TRUST in part
