"""The report of a few-shot run, on fake services: its words, its intervals, its given edits."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from pathlib import Path

import pytest
from controller_harness import IMPATIENT, RUN
from fake_services import Fakes, serve_fakes
from few_shot import FIXED, ORACLE, few_shot_spec

from controller_svc.cli.tables import print_tables
from controller_svc.core import Phase
from controller_svc.local.world import run_local
from seal.artifacts import ArtifactStore
from seal.report.numbers.build import build_report
from seal.report.numbers.model import Report
from seal.report.page.html import render_html
from seal.resources import RestEMRun
from seal.restem.statistics import success_interval

OF_KNOWLEDGE = re.compile(r"passage|\bF1\b|gold question|question-answer pair|holds a gold", re.I)
"""Words of the other domain."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    directory = tmp_path_factory.mktemp("few-shot")
    asyncio.run(run_to_its_end(directory))
    return build_report(ArtifactStore(str(directory / "runs")), RUN)


async def run_to_its_end(directory: Path) -> None:
    async with serve_fakes(Fakes()) as addresses:
        status = await run_local(
            RestEMRun.of(RUN, few_shot_spec(directory)),
            root=directory / "runs",
            services=addresses,
            settings=IMPATIENT,
        )
    assert status.phase is Phase.COMPLETE, status.condition("Failed")


def shown(page: str) -> str:
    """What a reader sees of a page, less the settings, whose names are for all domains."""
    body = page[page.index("<body>") : page.index('<section id="settings"')]
    return unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", body, flags=re.DOTALL))


def test_page_and_terminal_are_in_the_words_of_the_domain(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    print_tables(report, html="report.html", json="report.json")
    texts = (shown(render_html(report)), capsys.readouterr().out, *report.notes, report.headline)
    for text in texts:
        found = OF_KNOWLEDGE.search(text)
        assert not found, text[max(0, found.start() - 80) : found.end() + 80]
    assert "✓: the answer is the gold grid" in texts[0]
    assert "distance within a task" in texts[0]


def test_success_of_a_rollout_has_the_interval_of_a_share(report: Report) -> None:
    (rollout,) = report.rollouts
    shares = [rollout.baseline, rollout.reward, rollout.best]
    for estimate in shares:
        assert estimate.mean is not None
        expected = success_interval([estimate.mean] * estimate.n)
        assert expected is not None
        assert (estimate.low, estimate.high) == (expected.low, expected.high)


def test_the_page_shows_the_given_edits_and_that_the_run_searched_for_none(
    report: Report,
) -> None:
    page = shown(render_html(report))
    assert FIXED in page and ORACLE in page
    assert "this run searched for none and takes them as they are given" in page
