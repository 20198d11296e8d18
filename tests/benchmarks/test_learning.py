"""What rounds and reward add: the plan, its runs, the figures and the page.

The runs are made on fakes of the services, and once on a tiny random model through the command.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fake_services import Fakes, serve_fakes
from synthetic_run import MACHINE

from benchmarks.learning.__main__ import NOTES, write_page
from benchmarks.learning.data import SourceFile, Sources, data_of
from benchmarks.learning.execute import Bench, run_all
from benchmarks.learning.figures import figures_of, measured, published, verdict_of
from benchmarks.learning.opening import gains_table
from benchmarks.learning.page import render_page
from benchmarks.learning.plan import (
    ARMS,
    BEFORE_ROLLOUTS,
    BEFORE_SELECTION,
    PLAN,
    TINY,
    ArmName,
    PlannedRun,
    lender_of,
    pick,
    planned_runs,
    tiny_plan,
)
from benchmarks.learning.sharing import borrow
from benchmarks.learning.summary import Summary, read_summaries, write_summary
from benchmarks.learning.tiny import tiny_files
from controller_svc.core import RunStatus
from controller_svc.local.observer import Observer
from controller_svc.worker.progress import TaskProgress
from seal.datasets import load_contexts
from seal.errors import Conflict, InvalidInput
from seal.records import Interval, Stage

ROOT = Path(__file__).parents[2]
CONTEXTS = tuple(f"title-{number}-d" for number in range(30))


def summary(arm: str, seed: int = 0, *, corpus: str = "natural", **rows: float) -> Summary:
    """A run in which every passage has these scores, give or take what is the passage's own."""
    columns = {
        name.replace("_", "-"): {
            measure: tuple(level + 0.01 * (number % 5) for number in range(len(CONTEXTS)))
            for measure in ("f1", "exact", "contains", "logprob")
        }
        for name, level in rows.items()
    }
    return Summary.model_validate(
        {
            "corpus": corpus,
            "arm": arm,
            "seed": seed,
            "rounds": 2,
            "contexts": CONTEXTS,
            "queries": (5,) * len(CONTEXTS),
            "rows": columns,
            "edits": {"r1-rollout": {"edits": 8, "empty": 1, "usable": 14.5, "cover": 0.5}},
            "selections": {
                1: {"edits": 4, "rows": 31, "abstaining": 2, "dropped": {"no-credit": 4}}
            },
            "gold_rows": 12 if arm == "warm" else 0,
            "outcomes": {"r1-rollout": {"ok": 8}},
            "seconds": {"r1-rollout": 60.0},
            "settings": {
                "model": "tiny",
                "seed": seed,
                "edit.k": 2,
                "inner.lora.rank": 4,
                "data.trainContexts": 8,
            },
            "spec_sha256": "s" * 64,
            "model_sha256": "m" * 64,
            "train": SourceFile(name="train.json", sha256="1" * 64, contexts=24),
            "validation": SourceFile(name="validation.json", sha256="2" * 64, contexts=30),
            "machine": MACHINE,
        }
    )


REWARD = summary("reward", base=0.1, passage=0.2, edit_0=0.25, edit_1=0.3, edit_2=0.4)
CONTROL = summary("control", passage=0.2, edit_0=0.25, edit_1=0.3, edit_2=0.35)


def test_the_arms_that_decide_have_sixty_natural_passages_and_three_seeds() -> None:
    deciding = [planned for planned in PLAN if planned.arm in ("reward", "control")]
    assert {planned.corpus for planned in deciding} == {"natural", "validation"}
    assert all(planned.seeds >= 3 for planned in deciding)
    assert all(p.validation >= 60 for p in deciding if p.corpus == "natural")
    assert all(p.validation == 0 for p in deciding if p.corpus == "validation")


def test_a_run_is_picked_by_any_beginning_of_its_name() -> None:
    runs = planned_runs()
    assert [run.key for run in pick(runs, "natural/reward/0")] == ["natural/reward/0"]
    assert {run.arm for run in pick(runs, "natural/control, validation/warm")} == {
        "control",
        "warm",
    }
    assert pick(runs, "") == runs
    with pytest.raises(InvalidInput, match="names no run"):
        pick(runs, "natural/rew")


def test_every_run_of_the_plan_is_one_that_the_product_takes() -> None:
    for run in planned_runs():
        spec = run.spec(model="m", train="corpus://train", validation="corpus://validation")
        assert (spec.seed, spec.inner.student, spec.rounds) == (
            run.seed,
            "base",
            run.planned.rounds,
        )
        assert spec.improve.selection == ("random" if run.arm == "control" else "reward")


def test_a_difference_is_taken_on_one_passage_and_one_seed() -> None:
    only_in_one = summary("reward", 1, edit_2=9.0)
    figures = figures_of([REWARD, CONTROL, only_in_one], "natural")
    found = figures.contrast("last-control", "f1")
    assert found is not None and found.seeds == 1
    assert found.over_passages.mean == pytest.approx(0.05)
    assert figures.contrast("warm-round0", "f1") is None


def test_seeds_are_averaged_before_passages_are_resampled() -> None:
    values = {
        seed: {f"c{number}": float(number % 2 == seed) for number in range(20)} for seed in (0, 1)
    }
    found = measured(values)
    assert found is not None and found.over_passages.n == 20
    assert (found.over_passages.low, found.over_passages.high) == (0.5, 0.5)


def test_titles_are_drawn_whole_where_passages_share_them() -> None:
    of_article = {f"a{title}-{number}": float(title % 2) for title in range(8) for number in "xyz"}
    found = measured({0: of_article})
    assert found is not None and found.over_titles is not None
    assert (found.over_titles.n, found.over_titles.mean) == (8, found.over_passages.mean)
    wide, narrow = found.over_titles, found.over_passages
    assert wide.low is not None and narrow.low is not None and wide.low < narrow.low - 0.1
    alone = measured({0: {f"a{number}-x": float(number % 2) for number in range(8)}})
    assert alone is not None and alone.over_titles is None


@pytest.mark.parametrize(("low", "verdict"), [(1e-6, "unclear"), (1e-4, "above")])
def test_an_end_that_rounding_may_have_moved_is_not_clear_of_0(low: float, verdict: str) -> None:
    assert verdict_of(Interval(0.1, low, 0.2, 30)) == verdict


def test_what_other_articles_need_not_show_is_said() -> None:
    by_title = tuple((0.5, -0.2)[number // 3 % 2] for number in range(30))
    measures = ("f1", "exact", "contains", "logprob")
    one = summary("reward").model_copy(
        update={
            "contexts": tuple(f"t{number // 3}-{number}" for number in range(30)),
            "rows": {
                "edit-0": dict.fromkeys(measures, (0.0,) * 30),
                "edit-2": dict.fromkeys(measures, by_title),
            },
        }
    )
    figures = figures_of([one], "natural")
    assert "clear of 0, but not over titles |" in gains_table([figures])
    page = render_page([figures], "")
    assert "| last round − round 0 | 30 | 10 | +0.150 [−" in page, "and not bold"


def test_what_was_not_measured_is_absent_and_said_to_be_missing() -> None:
    figures = figures_of([REWARD], "natural")
    assert set(published([figures])["natural"]) == {
        "round0-passage",
        "last-round0",
        "last-passage",
    }
    page = render_page([figures], "")
    first = page.split("\n\n")[1]
    assert "nothing can be said of what the reward adds" in first
    assert "- control on natural text: seeds 0, 1 and 2 of 3" in page
    assert "- reward on natural text: seeds 1 and 2 of 3" in page


def test_what_rests_on_fewer_seeds_than_the_rest_of_the_opening_table_says_so() -> None:
    second = summary("reward", 1, passage=0.2, edit_0=0.25, edit_1=0.3, edit_2=0.4)
    figures = figures_of([REWARD, second, summary("warm", edit_2=0.9)], "natural")
    head, _, *rows = gains_table([figures]).splitlines()
    passages = f"{len(CONTEXTS)} passages"
    assert head == f"| token F1 | natural text, {passages}, 2 run seeds |"
    ends = {row.split(" | ")[0].lstrip("| "): row.rpartition("clear of 0")[2] for row in rows}
    assert ends["last round over round 0"] == " |"
    assert (
        ends["rounds on the warm start (supervised) over round 0"] == f" ({passages}, 1 run seed) |"
    )
    assert gains_table([figures_of([CONTROL], "natural")]) == ""


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (0.45, "the reward adds to what the M-step learns anyway"),
        (0.35, "nothing that the reward adds is shown"),
        (0.25, "below the control without reward"),
    ],
)
def test_the_first_paragraph_says_what_the_reward_adds(last: float, says: str) -> None:
    reward = summary("reward", edit_0=0.25, edit_2=last, passage=0.2)
    page = render_page([figures_of([reward, _spread(CONTROL)], "natural")], "")
    assert says in page.split("\n\n")[1]


def test_of_several_rounds_the_first_paragraph_tells_the_first_as_well() -> None:
    reward = summary("reward", edit_0=0.25, edit_1=0.31, edit_2=0.45, passage=0.2)
    control = summary("control", edit_0=0.25, edit_1=0.4, edit_2=0.35, passage=0.2)
    first = render_page([figures_of([reward, control], "natural")], "").split("\n\n")[1]
    assert "After round 1, for which both learn from the same rollout, it is −0.090" in first
    assert "the control falls back after its first round: −0.050" in first


def test_what_other_run_seeds_need_not_show_is_told_of_the_control_too() -> None:
    reward = [summary("reward", seed, edit_1=0.31, edit_2=0.6) for seed in range(3)]
    control = [
        summary("control", seed, edit_1=0.4, edit_2=last)
        for seed, last in enumerate((0.27, 0.37, 0.42))
    ]
    first = render_page([figures_of([*reward, *control], "natural")], "").split("\n\n")[1]
    assert "falls back after its first round: −0.047 [−0.047, −0.047]. With the run seeds" in first
    assert first.count("holds 0: other runs need not show it") == 1


def test_the_page_in_docs_is_that_of_its_summaries(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs/learning", tmp_path / "learning")
    assert write_page(tmp_path, NOTES)
    for name in ("learning.md", "learning.json"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), name


def _spread(one: Summary) -> Summary:
    """With differences that lie on both sides of their mean."""
    rows = {
        row: {
            measure: tuple(value + 0.02 * (-1) ** place for place, value in enumerate(values))
            for measure, values in scores.items()
        }
        for row, scores in one.rows.items()
    }
    return one.model_copy(update={"rows": rows})


def test_no_title_is_both_learnt_from_and_measured_on(tmp_path: Path) -> None:
    def write(name: str, titles: Sequence[str]) -> Path:
        file = tmp_path / f"{name}.jsonl"
        rows = (
            {
                "title": title,
                "context": f"The {name} of {title} is number {number}.",
                "questions": [{"question": f"Which {name}?", "answer": str(number)}],
            }
            for number, title in enumerate(titles)
        )
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    both = [f"article {number}" for number in range(12)] * 2
    sources = Sources(
        train=write("train", [*both, "learnt", ""]),
        validation=write("validation", ["measured", "", *both]),
    )
    planned = replace(PLAN[0], pool=0, validation=0)
    data = data_of(planned, sources, tmp_path / "parts")
    learnt, measured = (
        {context.title for context in load_contexts(side.path)}
        for side in (data.train, data.validation)
    )
    assert learnt & measured == {""}
    assert learnt | measured == {*both, "learnt", "measured", ""}
    assert len(learnt & set(both)) >= 3 <= len(measured & set(both))
    assert (data.train.source.titles, data.validation.source.titles) == (len(learnt), len(measured))
    assert data.train.source.contexts == 2 * len(learnt & set(both)) + 2


def test_figures_of_different_settings_are_not_laid_side_by_side(tmp_path: Path) -> None:
    other = CONTROL.model_copy(update={"settings": {**CONTROL.settings, "inner.lora.rank": 8}})
    for one in (REWARD, other):
        write_summary(tmp_path / "learning", one)
    with pytest.raises(Conflict, match=r"inner\.lora\.rank 8, not 4"):
        write_page(tmp_path, tmp_path / "notes.md")
    elsewhere = SourceFile(name="other.json", sha256="3" * 64, contexts=30)
    with pytest.raises(Conflict, match="other validation passages"):
        figures_of([REWARD, CONTROL.model_copy(update={"validation": elsewhere})], "natural")


def test_without_a_finished_run_there_is_no_page(tmp_path: Path) -> None:
    assert not write_page(tmp_path, tmp_path / "notes.md")
    assert list(tmp_path.iterdir()) == []


def test_a_summary_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = write_summary(tmp_path, REWARD)
    assert read_summaries(tmp_path) == (REWARD,)
    file.rename(tmp_path / "natural-reward-1.json")
    with pytest.raises(InvalidInput, match="it is that of natural/reward/0"):
        read_summaries(tmp_path)


def bench_in(directory: Path) -> Bench:
    directory.mkdir(exist_ok=True)
    return Bench(
        root=directory / "runs",
        out=directory / "docs" / "learning",
        model="tiny",
        sources=tiny_files(directory, Sources()),
        machine=MACHINE,
    )


async def make(
    bench: Bench,
    runs: Sequence[PlannedRun],
    fakes: Fakes,
    *,
    observer: Observer | None = None,
    after: Callable[[], None] = lambda: None,
) -> None:
    await run_all(
        bench,
        runs,
        all_runs=RUNS,
        services=lambda: serve_fakes(fakes),
        say=lambda words: None,
        after=after,
        observer=observer,
    )


FOUR = tuple(
    replace(planned, validation=4, seeds=2 if planned.corpus == "natural" else 1)
    for planned in tiny_plan()
)
RUNS = planned_runs(FOUR, changes=TINY)
CONTROL_RUN = "learning-natural-control-0"


def trained(fakes: Fakes, run: str) -> Counter[str]:
    """Trainings of a run by stage."""
    return Counter(
        "/".join(request.split("/")[1:3])
        for kind, request in fakes.calls
        if kind == "train" and request.startswith(f"{run}/")
    )


async def test_all_arms_end_in_a_page_with_the_figures_that_are_asked_for(tmp_path: Path) -> None:
    bench, ends = bench_in(tmp_path), []
    await make(bench, RUNS, Fakes(), after=lambda: ends.append(len(read_summaries(bench.out))))
    assert ends == [1 + number for number in range(len(RUNS))]
    assert write_page(tmp_path / "docs", tmp_path / "notes.md", plan=FOUR)
    figures = json.loads((tmp_path / "docs" / "learning.json").read_text())
    assert set(figures) == {"validation", "natural"}
    for of_corpus in figures.values():
        assert set(of_corpus) == {
            *("round0-passage", "last-round0", "last-control", "last-passage"),
            *("warm-round0", "warm-last-round0", "warm-last-passage"),
        }
        for measures in of_corpus.values():
            assert set(measures) == {"f1", "exact", "contains"}
            assert all(set(found) == {"mean", "low", "high"} for found in measures.values())
    page = (tmp_path / "docs" / "learning.md").read_text()
    assert "Not measured" not in page
    assert {one.arm for one in read_summaries(bench.out) if one.gold_rows} == {"warm"}
    committed = page + "".join(file.read_text() for file in bench.out.iterdir())
    assert str(tmp_path) not in committed
    assert (tmp_path / "docs" / "learning.svg").read_bytes().startswith(b"<?xml")
    idle = Fakes()
    await make(bench, RUNS, idle)
    assert not idle.calls


async def test_a_control_takes_over_what_it_has_in_common_and_comes_to_the_same(
    tmp_path: Path,
) -> None:
    both, alone = bench_in(tmp_path / "both"), bench_in(tmp_path / "alone")
    fakes, own = Fakes(), Fakes()
    await make(both, pick(RUNS, "natural/reward/0,natural/control/0"), fakes)
    await make(alone, pick(RUNS, "natural/control/0"), own)
    begins = {"r0/validate", "r1/rollout"}
    assert begins <= set(trained(own, CONTROL_RUN))
    assert begins.isdisjoint(trained(fakes, CONTROL_RUN))
    assert "r1/validate" in trained(fakes, CONTROL_RUN)
    borrowed = next(one for one in read_summaries(both.out) if one.arm == "control")
    (computed,) = read_summaries(alone.out)
    assert begins.isdisjoint(key.replace("-", "/") for key in borrowed.seconds)
    different = {"seconds"}
    assert borrowed.model_dump(exclude=different) == computed.model_dump(exclude=different)


@pytest.mark.parametrize("arm", ["control", "abstain", "preselect"])
def test_an_arm_shares_the_stages_in_which_it_does_what_its_reward_run_does(
    arm: ArmName, tmp_path: Path
) -> None:
    bench = bench_in(tmp_path)
    runs = planned_runs()
    (run,) = pick(runs, f"validation/{arm}/0")
    reward = lender_of(run, runs)
    assert reward and reward.key == "validation/reward/0"
    assert ARMS[arm].shares[:2] == BEFORE_ROLLOUTS
    assert (Stage.ROLLOUT in {stage for _, stage in ARMS[arm].shares}) == (arm != "preselect")
    lends = partial(borrow, bench.store, lender=bench.manifest(reward))
    assert lends(borrower=bench.manifest(run), stages=ARMS[arm].shares) == 0


@pytest.mark.parametrize(
    ("lender", "borrower"), [("reward", "warm"), ("warm", "control"), ("reward", "preselect")]
)
def test_a_run_borrows_no_stage_that_it_would_do_otherwise(
    lender: ArmName, borrower: ArmName, tmp_path: Path
) -> None:
    bench = bench_in(tmp_path)
    one, other = (
        bench.manifest(pick(planned_runs(), f"validation/{arm}/0")[0]) for arm in (lender, borrower)
    )
    with pytest.raises(InvalidInput, match="does the same in the stages"):
        borrow(bench.store, lender=one, borrower=other, stages=BEFORE_SELECTION)


class Stopped(Exception):
    """Stands for the end of the process."""


class StopsAt:
    """Ends the process when a stage begins."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def on_status(self, status: RunStatus) -> None:
        if status.stage is self._stage:
            raise Stopped

    def on_progress(self, progress: TaskProgress) -> None:
        pass


async def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    bench, before, later = bench_in(tmp_path), Fakes(), Fakes()
    runs = pick(RUNS, "validation/reward/0")
    with pytest.raises(Stopped):
        await make(bench, runs, before, observer=StopsAt(Stage.IMPROVE))
    assert read_summaries(bench.out) == ()
    await make(bench, runs, later)
    assert set(trained(before, runs[0].name)) == {"r0/validate", "r1/rollout"}
    assert set(trained(later, runs[0].name)) <= {"r1/improve", "r1/validate"}
    assert [one.key for one in read_summaries(bench.out)] == ["validation/reward/0"]


async def test_a_summary_of_other_settings_is_not_taken_for_a_run_of_the_plan(
    tmp_path: Path,
) -> None:
    bench, runs = bench_in(tmp_path), pick(RUNS, "validation/reward/0")
    await make(bench, runs, Fakes())
    others, idle = planned_runs(FOUR, changes={**TINY, "edit.k": 3}), Fakes()
    for only in ("validation/reward/0", "natural/warm/0"):
        with pytest.raises(Conflict, match=r"edit\.k 2, not 3"):
            await make(bench, pick(others, only), idle)
    assert not idle.calls


def test_the_command_runs_every_arm_on_a_random_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.learning", "--tiny", "--only", "validation"]
    done = subprocess.run(
        [*command, "--docs", str(tmp_path), "--root", str(tmp_path / "runs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert {one.arm for one in read_summaries(tmp_path / "learning")} == set(ARMS)
    assert (tmp_path / "learning.md").is_file()
