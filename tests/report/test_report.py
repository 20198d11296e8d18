"""The report's numbers.

What is missing stays missing, means are over passages, and every figure can be recomputed from the
records.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Literal, get_args

import pytest
from synthetic_run import MACHINE, Maker, Recipe, make_run

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.words import distinct_share
from seal.errors import Internal, NotFound
from seal.outcomes import Outcome
from seal.records import (
    ContextRecord,
    EvaluationRecord,
    Interval,
    SelectionRecord,
    ShardSummary,
    Stage,
)
from seal.report import Report, build_report
from seal.report.numbers import estimates
from seal.report.numbers.comparisons import comparisons
from seal.report.numbers.entries import Decision
from seal.report.numbers.estimates import Estimator
from seal.report.numbers.findings import headline
from seal.report.numbers.formats import stage_name
from seal.report.numbers.model import Difference, Verdict
from seal.report.numbers.parts import asked_on, part_groups
from seal.report.numbers.shapes import histogram, spread
from seal.report.numbers.words import DECISION_WORDS, OUTCOME_WORDS, PART_WORDS
from seal.report.page.advice import advice
from seal.restem.rollout import candidates_of
from seal.restem.select import DropReason, PartDropReason
from seal.runs.shards import ShardStore

MEASURES = tuple(measure.name for measure in get_domain("knowledge").measures)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path))


@pytest.fixture(scope="module")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    store = ArtifactStore(str(tmp_path_factory.mktemp("full")))
    make_run(store)
    return store


@pytest.fixture(scope="module")
def full(full_store: ArtifactStore) -> Report:
    return build_report(full_store, "demo")


def report_of(store: ArtifactStore, **recipe: object) -> Report:
    return build_report(store, make_run(store, **recipe))


def records_of(store: ArtifactStore, stage: str) -> list[ContextRecord]:
    lines = store.read_bytes(f"demo/stages/{stage}/shard-0000/records.jsonl").splitlines()
    return [ContextRecord.model_validate_json(line) for line in lines]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_a_directory_without_a_run_is_refused_with_the_remedy(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match=r"run\.json"):
        build_report(store, "demo")


def test_records_that_are_not_those_of_their_summary_are_refused_naming_the_file(
    store: ArtifactStore,
) -> None:
    run = make_run(store)
    path = f"{run}/stages/r1-rollout/shard-0000/records.jsonl"
    store.write_bytes(path, store.read_bytes(path)[:-20])
    with pytest.raises(Internal, match=r"r1-rollout/shard-0000/records\.jsonl"):
        build_report(store, run)


async def test_records_of_another_version_are_refused_by_file_line_version_and_remedy(
    store: ArtifactStore, tmp_path: Path
) -> None:
    run = make_run(store)
    directory = tmp_path / run / "stages/r1-rollout/shard-0000"
    path = directory / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"inner_loops":', '"loops":', 1)
    path.write_text("".join(f"{line}\n" for line in lines))
    summary = json.loads((directory / "summary.json").read_text())
    summary["result_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "summary.json").write_text(json.dumps(summary))
    named = r"r1-rollout/shard-0000/records\.jsonl, line 2, holds no ContextRecord: innerLoops"
    with pytest.raises(Internal, match=named) as caught:
        build_report(store, run)
    assert caught.value.remedy == (
        "it was written by another version of this program (seal 0.1.0): use that one for the run, "
        "or begin another run"
    )
    shard = ShardStore(store, run=run, round=1, stage=Stage.ROLLOUT, shard=0)
    with pytest.raises(Internal, match=named):  # as the choice of edits reads them
        await shard.read_records()


def test_a_shard_without_summary_does_not_count(store: ArtifactStore, tmp_path: Path) -> None:
    run = make_run(store, shards=2, stages_done=1)
    (tmp_path / run / "stages/r0-validate/shard-0001/summary.json").unlink()
    report = build_report(store, run)
    assert report.validation_passages == 8
    assert any("1 of 2 shards" in note for note in report.notes)
    assert report.rounds_done == 0


def test_a_run_that_has_finished_nothing_has_a_report_that_says_so(store: ArtifactStore) -> None:
    report = report_of(store, stages_done=0)
    assert report.rows == report.stages == report.rollouts == ()
    assert any("not finished" in note for note in report.notes)
    assert report.last_edit_row is None


def test_a_failed_run_says_why(store: ArtifactStore) -> None:
    from synthetic_run import Status

    run = make_run(store, stages_done=2)
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "Exhausted",
        "message": "the disk is full",
    }
    store.write_json(f"{run}/status.json", Status(phase="Failed", conditions=(condition,)))
    report = build_report(store, run)
    assert report.failure == "Exhausted: the disk is full"
    assert "The run failed: Exhausted: the disk is full" in report.notes


def test_of_a_run_without_a_status_it_is_not_said_that_it_has_not_finished(
    store: ArtifactStore,
) -> None:
    """A cluster keeps the status in the run's object."""
    run = make_run(store, stages_done=1)
    store.remove(f"{run}/status.json")
    report = build_report(store, run)
    assert any(note.startswith("How the run ended is not known here") for note in report.notes)
    assert not any("is not finished" in note for note in report.notes)
    assert not any("Let it finish" in str(step) for step in advice(report))


def test_only_round_zero_has_rows_of_round_zero_and_no_rollout(store: ArtifactStore) -> None:
    report = report_of(store, stages_done=1)
    assert [row.key for row in report.rows] == ["base", "passage", "edit-0", "gold"]
    assert report.rollouts == report.rollout_details == ()
    assert report.last_edit_row is report.row("edit-0")


def test_rows_are_base_passage_edits_by_round_and_gold(full: Report) -> None:
    assert [row.key for row in full.rows] == [
        "base",
        "passage",
        "edit-0",
        "edit-1",
        "edit-2",
        "gold",
    ]


def test_a_bound_that_was_not_measured_has_no_row(store: ArtifactStore) -> None:
    assert report_of(store, gold=False).row("gold") is None


def test_a_score_is_the_mean_over_passages_of_the_mean_over_candidates_of_the_mean_over_repeats(
    store: ArtifactStore,
) -> None:
    def two_edits(maker: Maker) -> None:
        validation = maker.spec.validation.model_copy(update={"edits_per_context": 2})
        maker.spec = maker.spec.model_copy(update={"validation": validation})

    report = build_report(
        store,
        make_run(
            store, two_edits, stages_done=1, repeats=3, diverged=0.2, ungraded=0.1, invalid=0.2
        ),
    )
    passages = []
    for record in records_of(store, "r0-validate"):
        candidates = []
        for candidate in (0, 1):
            loops = [
                loop
                for loop in record.inner_loops
                if (loop.kind, loop.candidate) == ("edit", candidate) and loop.evaluation
            ]
            graded = [
                [a.measures["contains"] for a in loop.evaluation.answers if a.outcome is Outcome.OK]
                for loop in loops
                if loop.evaluation
            ]
            repeats = [mean(answers) for answers in graded if answers]
            candidates += [mean(repeats)] if repeats else []
        passages += [mean(candidates)] if candidates else []
    row = report.row("edit-0")
    assert row is not None
    assert 0 < len(passages) <= 16
    assert row.metrics["contains"].n == len(passages)
    assert row.metrics["contains"].mean == pytest.approx(mean(passages))
    assert row.passages_missing == 16 - len(passages)


def test_the_difference_to_passage_only_is_paired_over_passages_that_have_both(
    store: ArtifactStore,
) -> None:
    report = report_of(store, stages_done=1, invalid=0.4)
    differences = []
    for record in records_of(store, "r0-validate"):
        rewards = {
            loop.kind: loop.evaluation.reward for loop in record.inner_loops if loop.evaluation
        }
        if "edit" in rewards and "passage" in rewards:
            differences.append((rewards["edit"] or 0.0) - (rewards["passage"] or 0.0))
    row = report.row("edit-0")
    assert row is not None
    estimate = row.over_passage["score"]
    assert 2 < len(differences) < 16
    assert (estimate.n, estimate.mean) == (len(differences), pytest.approx(mean(differences)))
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= mean(differences) <= estimate.high


def test_the_difference_to_passage_only_is_over_questions_that_both_have_a_grade_of(
    store: ArtifactStore,
) -> None:
    report = report_of(store, stages_done=1, ungraded=0.4)
    differences = []
    for record in records_of(store, "r0-validate"):
        scores = {
            loop.kind: {answer.query_id: answer.score for answer in loop.evaluation.answers}
            for loop in record.inner_loops
            if loop.evaluation
        }
        if "edit" in scores and "passage" in scores:
            pairs = [(score, scores["passage"][name]) for name, score in scores["edit"].items()]
            both = [one - other for one, other in pairs if one is not None and other is not None]
            differences += [mean(both)] if both else []
    row = report.row("edit-0")
    assert row is not None and differences
    estimate = row.over_passage["score"]
    assert (estimate.n, estimate.mean) == (len(differences), pytest.approx(mean(differences)))


def test_a_rollout_s_rewards_are_those_that_edits_were_chosen_by(store: ArtifactStore) -> None:
    report = report_of(store, stages_done=2, ungraded=0.1)
    chosen = {
        (record.context_id, candidate.candidate): candidate.reward
        for record in records_of(store, "r1-rollout")
        for candidate in candidates_of(record)
    }
    shown = {
        (passage.context_id, edit.candidate): edit.reward
        for passage in report.rollout_details[0].passages
        for edit in passage.edits
    }
    assert shown.items() <= chosen.items() and None in shown.values()


def test_no_row_is_compared_with_itself(store: ArtifactStore) -> None:
    report = report_of(store, stages_done=1)
    assert {row.key for row in report.rows if not row.over_passage} == {"passage"}
    assert {row.key for row in report.rows if not row.over_base} == {"base"}


def test_a_round_is_compared_with_round_zero_and_the_round_before_passage_by_passage(
    store: ArtifactStore,
) -> None:
    report = report_of(store, invalid=0.2)
    scores = [
        {
            record.context_id: loop.evaluation.reward or 0.0
            for record in records_of(store, f"r{number}-validate")
            for loop in record.inner_loops
            if loop.kind == "edit" and loop.evaluation
        }
        for number in (0, 1, 2)
    ]
    last = report.row("edit-2")
    assert last is not None
    for over, earlier in ((last.over_first, scores[0]), (last.over_previous, scores[1])):
        both = sorted(scores[2].keys() & earlier.keys())
        expected = mean([scores[2][each] - earlier[each] for each in both])
        assert 2 < len(both) < 16
        assert (over["score"].n, over["score"].mean) == (len(both), pytest.approx(expected))
    first, bounds = report.row("edit-0"), (report.row("passage"), report.row("gold"))
    assert all(row and not row.over_first and not row.over_previous for row in (first, *bounds))


@pytest.mark.parametrize(("end", "verdict"), [(-5e-18, Verdict.UNCLEAR), (-0.1, Verdict.WORSE)])
def test_an_end_that_is_0_but_for_the_last_bit_is_not_clear_of_it(
    monkeypatch: pytest.MonkeyPatch, end: float, verdict: Verdict
) -> None:
    def interval(*_: object, **__: object) -> Interval:
        return Interval(-0.2, -0.4, end, 11)

    monkeypatch.setattr(estimates, "mean_interval", interval)
    assert Estimator(seed=0).difference({}).verdict is verdict


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.2, 0.1, 0.3, 0.1, 0.2, 0.3], Verdict.BETTER),
        ([-0.2, -0.1, -0.3, -0.1, -0.2, -0.3], Verdict.WORSE),
        ([0.2, -0.1, 0.3, -0.4, 0.2, -0.3], Verdict.UNCLEAR),
        ([0.0] * 6, Verdict.UNCLEAR),
        ([0.2, 0.1, 0.3, 0.1, 0.2], Verdict.UNKNOWN),
        ([0.2], Verdict.UNKNOWN),
        ([], Verdict.UNKNOWN),
    ],
)
def test_a_verdict_needs_an_interval_clear_of_zero_over_enough_passages(
    differences: list[float], verdict: Verdict
) -> None:
    scores = {str(place): value for place, value in enumerate(differences)}
    assert Estimator(seed=0).difference(scores).verdict is verdict


def test_rounds_that_made_it_worse_are_said_to_have(store: ArtifactStore) -> None:
    report = report_of(store, gain=0.6, learnt=-1.0, invalid=0.0, diverged=0.0)
    last = report.last_edit_row
    assert last is not None
    assert [rollout.trained for rollout in report.rollouts] == [True, True]
    assert last.over_first["contains"].verdict is Verdict.WORSE
    assert report.headline.startswith("The rounds made the self-edits worse in every measure.")
    finding = next(each for each in report.findings if "those of the base model" in each)
    assert finding.count("], worse") == 3


def test_rounds_that_helped_are_said_to_have_and_too_few_passages_to_tell_nothing(
    store: ArtifactStore, tmp_path: Path
) -> None:
    better = report_of(store, gain=0.35, learnt=1.0, invalid=0.0, diverged=0.0)
    assert better.headline.startswith("The rounds made the self-edits better in every measure.")
    few = report_of(ArtifactStore(str(tmp_path / "few")), gain=0.35, learnt=1.0, passages=4)
    assert few.headline.startswith("The passages are too few to tell whether the rounds")
    assert any("too few passages" in finding for finding in few.findings)


def test_a_finding_has_every_measure_with_its_own_verdict(full: Report) -> None:
    passage = full.row("passage")
    assert passage is not None
    verdicts = [passage.over_base[metric].verdict for metric in MEASURES]
    assert verdicts == [Verdict.UNCLEAR, Verdict.BETTER, Verdict.UNCLEAR]
    finding = next(each for each in full.findings if "no training at all" in each)
    told = ["F1 +8.3 ", "], cannot be told apart; exact match ", "], better; contains "]
    assert all(part in finding for part in told)


def test_every_outcome_and_every_decision_has_words(store: ArtifactStore) -> None:
    assert set(OUTCOME_WORDS) == set(Outcome)
    assert set(DECISION_WORDS) == set(get_args(Decision)) >= {str(each) for each in DropReason}
    report = report_of(store, diverged=0.5, failure=Outcome.TOO_LONG)
    assert any(" too long" in note and "too_long" not in note for note in report.notes)
    assert report.rollouts[0].decisions["too_long"] > 5


def test_an_ungraded_answer_is_left_out_and_counted(store: ArtifactStore) -> None:
    full, holes = Maker(Recipe()), Maker(Recipe(ungraded=1.0))
    graded = full.evaluate(full.validation[:1], 1.0)
    assert graded.reward == 1.0
    assert holes.evaluate(holes.validation[:1], 1.0).reward is None
    report = report_of(store, ungraded=0.5, stages_done=1, gain=0.0, gold=True)
    gold = report.row("gold")
    assert gold is not None
    assert gold.answers_ungraded > 0
    assert gold.metrics["exact"].mean == pytest.approx(0.93, abs=0.08), (
        "ungraded answers would pull it to half of that"
    )


def test_a_run_in_which_nothing_was_graded_has_no_means(store: ArtifactStore) -> None:
    report = report_of(store, ungraded=1.0, repeats=2)
    assert all(row.metrics[metric].mean is None for row in report.rows for metric in row.metrics)
    assert all(row.passages_missing == 16 for row in report.rows)
    assert all(rollout.kept == 0 and rollout.rewards == () for rollout in report.rollouts)
    assert all(rollout.reliability is None for rollout in report.rollouts)


def test_edits_that_are_all_empty_leave_a_row_without_score(store: ArtifactStore) -> None:
    report = report_of(store, invalid=1.0, stages_done=2)
    row, rollout = report.row("edit-0"), report.rollouts[0]
    assert row is not None
    assert row.metrics["f1"].mean is None
    assert row.outcomes == {"invalid": 16}
    assert rollout.decisions == {"invalid": 48}
    assert report.shapes[0].empty == report.shapes[0].edits == 16


def test_a_round_that_kept_nothing_has_trained_nothing_and_says_that_the_policy_stays(
    store: ArtifactStore,
) -> None:
    report = report_of(store, perfect_before=True)
    assert [rollout.trained for rollout in report.rollouts] == [False, False]
    assert "Round 1 kept no edit: its policy is that of round 0." in report.notes
    assert report.headline.startswith("No round trained a new policy")


@pytest.mark.parametrize("by", ["reward", "random"])
@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("long_rows", [0, 6])
def test_every_candidate_has_one_decision_and_they_are_those_of_the_selection(
    store: ArtifactStore, long_rows: int, keep: int, by: Literal["reward", "random"]
) -> None:
    run = make_run(store, invalid=0.2, diverged=0.1, long_rows=long_rows, keep=keep, selection=by)
    report = build_report(store, run)
    for rollout, details in zip(report.rollouts, report.rollout_details, strict=True):
        selection = store.read_json(
            f"{run}/stages/r{rollout.round}-improve/selection.json", SelectionRecord
        )
        assert rollout.decisions == {"kept": len(selection.kept)} | selection.dropped
        assert rollout.decisions.get("too_long", 0) == long_rows
        assert sum(rollout.decisions.values()) == rollout.candidates == 48
        shown = Counter(edit.decision for passage in details.passages for edit in passage.edits)
        assert dict(shown) == rollout.decisions
        kept = {
            (passage.context_id, edit.candidate)
            for passage in details.passages
            for edit in passage.edits
            if edit.decision == "kept"
        }
        assert kept == {(edit.context_id, edit.candidate) for edit in selection.kept}


def test_where_parts_are_chosen_an_edit_is_kept_if_a_part_of_it_is(store: ArtifactStore) -> None:
    run = make_run(store, credit="part", invalid=0.2)
    report = build_report(store, run)
    for rollout in report.rollouts:
        selection = store.read_json(
            f"{run}/stages/r{rollout.round}-improve/selection.json", SelectionRecord
        )
        assert rollout.decisions == {"kept": len(selection.kept)} | selection.dropped
        assert rollout.kept_parts == len(selection.rows) > 0
        assert rollout.kept_parts + sum(rollout.dropped_parts.values()) == rollout.candidates
        assert rollout.label == ""


def test_before_parts_are_chosen_graded_candidates_are_undecided(store: ArtifactStore) -> None:
    decisions = report_of(store, credit="part", stages_done=2, invalid=0.2).rollouts[0].decisions
    assert set(decisions) <= {"undecided", "invalid", "diverged"}
    assert decisions["undecided"] > 20


def test_a_control_without_reward_is_called_so_beside_every_round(store: ArtifactStore) -> None:
    report = report_of(store, credit="part", selection="random")
    assert [rollout.label for rollout in report.rollouts] == ["control without reward"] * 2
    labels = {row.key: row.label for row in report.rows}
    assert labels["edit-0"] == "self-edits, round 0"
    assert labels["edit-2"] == "self-edits, round 2 (control without reward)"
    assert any("Round 1 is a control without reward" in note for note in report.notes)


def test_every_reason_to_drop_a_part_has_its_words() -> None:
    assert set(PART_WORDS) == set(PartDropReason)


def test_before_the_selection_graded_candidates_are_undecided(store: ArtifactStore) -> None:
    report = report_of(store, stages_done=2, invalid=0.2)
    assert set(report.rollouts[0].decisions) <= {"undecided", "invalid", "diverged"}
    assert report.rollouts[0].decisions["undecided"] > 20
    assert report.rollouts[0].trained is None


def test_histograms_hold_every_graded_candidate_once(full: Report) -> None:
    for rollout in full.rollouts:
        graded = rollout.better + rollout.equal + rollout.worse
        assert sum(each.kept + each.dropped for each in rollout.rewards) == graded
        assert sum(each.kept + each.dropped for each in rollout.gains) == graded
        assert sum(each.kept for each in rollout.gains) == rollout.kept


def test_a_gain_of_zero_has_a_bar_of_its_own() -> None:
    bins = histogram(
        [(0.0, False), (0.3, True), (-0.05000001, False), (0.04, False)], width=0.1, centred=True
    )
    zero = next(each for each in bins if each.low < 0 < each.high)
    assert (zero.low, zero.high, zero.kept, zero.dropped) == (
        pytest.approx(-0.05),
        pytest.approx(0.05),
        0,
        2,
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.6, 0.7, 1.0])
def test_a_value_on_an_edge_belongs_to_the_bar_above(value: float) -> None:
    (only,) = histogram([(value, True)], width=0.1)
    assert only.low == pytest.approx(value)


def test_log_probabilities_get_bars_of_a_round_width() -> None:
    bins = histogram([(-3.2, False), (-0.4, True), (-1.7, False)])
    assert {round(each.high - each.low, 6) for each in bins} == {0.5}
    assert sum(each.kept + each.dropped for each in bins) == 3


@pytest.mark.parametrize("beside", [(), (-0.4,), (-1.69999,)])
def test_a_lone_value_has_a_bar_that_is_seen_beside_what_its_axis_shows(
    beside: tuple[float, ...],
) -> None:
    (only,) = histogram([(-1.7, True)], beside=beside)
    extent = max(-1.7, *beside, only.high) - min(-1.7, *beside, only.low)
    assert only.high - only.low > extent / 20
    assert only.low <= -1.7 + 1e-9 < only.high


def test_a_lone_candidate_of_a_log_p_run_has_bars_that_are_seen(store: ArtifactStore) -> None:
    lone: dict[str, object] = {"passages": 1, "train_passages": 1, "k": 1, "invalid": 0.0}
    report = report_of(store, grader="logprob", diverged=0.0, rounds=1, **lone)
    (rollout,) = report.rollouts
    (reward,), (gain,) = rollout.rewards, rollout.gains
    assert rollout.baseline.mean is not None
    assert reward.high - reward.low > abs(rollout.baseline.mean - reward.low) / 20
    assert gain.high - gain.low > abs(gain.low) / 20


def told_by(full: Report, **verdicts: Verdict) -> str:
    """The headline if the last round compares so by each measure, with round 0 and the passage."""
    last = full.last_edit_row
    assert last is not None
    over = {name: Difference(n=9, mean=0.1, verdict=verdict) for name, verdict in verdicts.items()}
    rows = [
        row.model_copy(update={"over_first": over, "over_passage": over}) if row is last else row
        for row in full.rows
    ]
    return headline(rows, full.rollouts, tuple(verdicts))


def test_the_headline_tells_by_which_measures_two_differ_and_by_which_they_do_not(
    full: Report,
) -> None:
    better, worse, unclear = Verdict.BETTER, Verdict.WORSE, Verdict.UNCLEAR
    assert told_by(full, f1=better, exact=better, contains=unclear).startswith(
        "The rounds made the self-edits better in F1 and exact match; in contains no difference "
        "can be told. Self-edits of round 2 are better than the passage alone in F1 and exact "
        "match; in contains no difference can be told. Self-edits of the base model cannot be "
        "told apart from the passage alone in "
    )
    assert told_by(full, f1=better, exact=better, contains=worse).startswith(
        "The rounds made the self-edits better in F1 and exact match; worse in contains."
    )
    assert told_by(full, f1=unclear, exact=unclear, contains=unclear).startswith(
        "This run cannot tell whether the rounds made the self-edits better or worse in any "
        "measure. Self-edits of round 2 cannot be told apart from the passage alone in any measure."
    )


def test_rounds_that_learnt_another_model_s_edits_are_said_to_have(full: Report) -> None:
    rows = [row.model_copy(update={"remark": "edits by muse-2"}) for row in full.rows]
    said = headline(rows, full.rollouts, MEASURES)
    assert "These rounds learnt edits by muse-2." in said


def test_a_reward_that_is_none_of_the_three_measures_is_told_beside_them(full: Report) -> None:
    alike = dict.fromkeys(MEASURES, Verdict.UNCLEAR)
    assert told_by(full, **alike, logprob=Verdict.BETTER).startswith(
        "The rounds made the self-edits better in log p; in F1, exact match and contains no "
        "difference can be told."
    )


def test_bounds_are_rows_in_plain_words_in_the_order_of_the_comparison(
    store: ArtifactStore,
) -> None:
    report = report_of(store, bounds=True, rounds=1)
    assert [row.label for row in report.rows] == [
        "base model",
        "passage alone",
        "passage alone, as many steps as the edits",
        "self-edits, round 0",
        "self-edits, round 1",
        "gold questions (upper bound)",
        "open book: the passage before the question",
    ]
    open_book, steps = report.row("open-book"), report.row("passage-equal-steps")
    assert open_book is not None and steps is not None
    assert open_book.outcomes == {} and steps.outcomes == {"ok": 16}, "one trains nothing"
    assert report.validation_details is not None
    answers = report.validation_details.passages[0].questions[0].answers
    assert {"passage-equal-steps", "open-book"} <= set(answers)


def test_all_rows_are_compared_with_the_passage_row_of_the_higher_f1(
    store: ArtifactStore, tmp_path: Path
) -> None:
    report = report_of(store, bounds=True, rounds=1)
    f1 = {row.key: row.metrics["f1"].mean or 0.0 for row in report.rows}
    assert f1["passage-equal-steps"] > f1["passage"] > 0
    assert report.best_passage == "passage-equal-steps"
    best, edits = report.row(report.best_passage), report.row("edit-1")
    assert best is not None and edits is not None and best.over_passage == {}
    both = edits.over_passage["f1"]
    assert both.mean == pytest.approx(f1["edit-1"] - f1["passage-equal-steps"], abs=0.05)
    assert any("− passage, equal steps" in each.name for each in comparisons(report.rows))
    assert "the passage alone with as many steps as the edits" in report.headline
    alone = report_of(ArtifactStore(str(tmp_path / "alone")), rounds=0)
    assert alone.best_passage == "passage"


def test_the_control_without_reward_is_said_to_be_one_wherever_its_rounds_are_shown(
    store: ArtifactStore,
) -> None:
    report = report_of(store, credit="part", selection="random", rounds=1)
    row, first = report.row("edit-1"), report.row("edit-0")
    assert row is not None and first is not None
    assert row.label == "self-edits, round 1 (control without reward)" and row.without_reward
    assert first.label == "self-edits, round 0" and not first.without_reward
    assert "These rounds are a control without reward." in report.headline
    retained = {each.key: each.label for each in report.retained}
    assert retained["policy-1"] == "policy of round 1 alone (control without reward)"
    assert retained["edit-1"] == "after self-edits, round 1 (control without reward)"
    assert all("control" not in retained[key] for key in ("policy-0", "edit-0", "passage-0"))


def test_the_number_of_shards_does_not_show(full: Report, store: ArtifactStore) -> None:
    one, three = full, report_of(store, shards=3)
    assert one.rows == three.rows
    assert one.rollouts == three.rollouts
    assert one.retained == three.retained


def test_reliability_needs_repeats(full: Report, store: ArtifactStore) -> None:
    assert all(rollout.reliability is None for rollout in full.rollouts)
    repeated = report_of(store, repeats=3, stages_done=2).rollouts[0].reliability
    assert repeated is not None
    assert repeated.repeats == 3
    assert repeated.single <= 1


def test_a_raced_rollout_reports_the_first_trainings_mean_the_best_finalist_no_reliability(
    store: ArtifactStore,
) -> None:
    report = report_of(store, repeats=2, racing=(2,), stages_done=3, diverged=0.1)
    rollout = report.rollouts[0]
    means, best = [], []
    for record in records_of(store, "r1-rollout"):
        rewards = {
            (loop.candidate, loop.repeat): loop.evaluation.reward
            for loop in record.inner_loops
            if loop.evaluation
        }
        means.append(
            mean([reward or 0.0 for (_, repeat), reward in rewards.items() if repeat == 0])
        )
        twice = [c for c in range(4) if {(c, 0), (c, 1)} <= rewards.keys()]
        assert len({loop.candidate for loop in record.inner_loops if loop.repeat == 1}) == 2
        if twice:
            best.append(max(mean([rewards[c, 0] or 0.0, rewards[c, 1] or 0.0]) for c in twice))
    assert rollout.reward.mean == pytest.approx(mean(means))
    assert rollout.best.mean == pytest.approx(mean(best)) and len(best) == len(means)
    assert rollout.reliability is None
    assert (
        rollout.decisions["eliminated"] > 0
        and sum(rollout.decisions.values()) == rollout.candidates == 48
    )


def test_forgetting_is_measured_against_the_same_policy_on_the_same_questions(
    store: ArtifactStore,
) -> None:
    report = report_of(store, stages_done=1)
    run = report.run
    alone = store.read_json(f"{run}/stages/r0-validate/shard-0000/retained.json", EvaluationRecord)
    policy = {answer.query_id: answer.measures["contains"] for answer in alone.answers}
    changes = []
    for record in records_of(store, "r0-validate"):
        asked = [
            answer
            for loop in record.inner_loops
            if loop.kind == "passage" and loop.retained
            for answer in loop.retained.answers
        ]
        changes.append(
            mean([answer.measures["contains"] - policy[answer.query_id] for answer in asked])
        )
    row = next(row for row in report.retained if row.key == "passage-0")
    assert row.accuracy_change is not None
    assert row.accuracy_change.mean == pytest.approx(mean(changes))
    assert [row.key for row in report.retained] == ["policy-0", "passage-0", "edit-0", "gold-0"]


def test_bounds_of_a_run_with_a_warm_start_are_compared_with_the_base_model_beneath_them(
    store: ArtifactStore,
) -> None:
    run = make_run(store, stages_done=2, warm=True, credit="part")
    folder = f"{run}/stages/r0-validate/shard-0000"
    policy = store.read_json(f"{folder}/retained.json", EvaluationRecord)
    wrong = tuple(
        answer.model_copy(update={"measures": {**answer.measures, "contains": 0.0}})
        for answer in policy.answers
    )
    base = policy.model_copy(update={"answers": wrong})
    store.write_json(f"{folder}/retained-base.json", base)
    rows = {row.key: row for row in build_report(store, run).retained}

    def gained(key: str) -> tuple[float | None, float | None]:
        row = rows[key]
        return row.accuracy.mean, row.accuracy_change and row.accuracy_change.mean

    for key in ("passage-0", "gold-0"):
        accuracy, change = gained(key)
        assert change == pytest.approx(accuracy), "the base model answers nothing right"
    accuracy, change = gained("edit-0")
    assert accuracy is not None and change is not None and change < accuracy


def test_a_run_without_a_retained_set_measures_no_forgetting(store: ArtifactStore) -> None:
    assert report_of(store, retained=False).retained == ()


def test_cost_is_that_of_the_summaries(full: Report, full_store: ArtifactStore) -> None:
    report = full
    summaries = [
        full_store.read_json(path, ShardSummary)
        for path in full_store.list("demo/stages")
        if path.endswith("/shard-0000/summary.json")
    ]
    assert len(summaries) == len(report.stages) == 7
    assert sum(stage.inner_loops_run for stage in report.stages) == sum(
        summary.inner_loops_run for summary in summaries
    )
    assert sum(stage.inner_loops_resumed for stage in report.stages) == sum(
        summary.inner_loops_resumed for summary in summaries
    )
    assert report.seconds == pytest.approx(sum(summary.seconds for summary in summaries))


def test_bytes_are_summed_by_round_over_stages_and_shards(store: ArtifactStore) -> None:
    report = report_of(store, shards=2)
    sizes = {
        number: sum(
            len(store.read_bytes(path))
            for path in store.list("demo/stages")
            if path.endswith("/records.jsonl") and f"/r{number}-" in path
        )
        for number in (0, 1, 2)
    }
    assert report.kept_bytes == {
        0: {"records": sizes[0]},
        1: {"policy": 3_000_000, "records": sizes[1]},
        2: {"policy": 3_000_000, "records": sizes[2]},
    }


def test_inner_adapters_count_as_kept_only_where_the_run_keeps_them(store: ArtifactStore) -> None:
    report = report_of(store, rounds=1, keep_inner_adapters=True)
    stages = {(stage.round, stage.stage): stage.kept_bytes for stage in report.stages}
    assert stages[0, "validate"]["adapters"] == 5_000_000
    assert report.kept_bytes[1]["adapters"] == 10_000_000, "rollout and validation"


def test_details_are_cut_and_say_how_many_there_are(full_store: ArtifactStore) -> None:
    report = build_report(full_store, "demo", max_passages=3)
    assert report.validation_details is not None
    assert (len(report.validation_details.passages), report.validation_details.passages_total) == (
        3,
        16,
    )
    assert [(len(group.passages), group.passages_total) for group in report.rollout_details] == [
        (3, 12),
        (3, 12),
    ]


def test_answers_before_and_after_are_those_of_the_records(
    full: Report, full_store: ArtifactStore
) -> None:
    report = full
    assert report.validation_details is not None
    entry, record = report.validation_details.passages[0], records_of(full_store, "r0-validate")
    record_of_entry = next(each for each in record if each.context_id == entry.context_id)
    assert entry.text.startswith("The ")
    for question, answer in zip(entry.questions, record_of_entry.baseline.answers, strict=True):
        assert (question.question, question.golds, question.answers["base"].answer) == (
            answer.question,
            answer.golds,
            answer.answer,
        )
    assert {"base", "passage", "edit-1", "edit-2", "gold"} <= set(entry.questions[0].answers)


def test_few_passages_are_noted(store: ArtifactStore) -> None:
    assert any(
        "over 3 passages only" in note
        for note in report_of(store, passages=3, invalid=0.0, diverged=0.0).notes
    )


def test_one_passage_has_means_and_no_intervals(store: ArtifactStore) -> None:
    report = report_of(store, passages=1, train_passages=1, k=1, gold=False, retained=False)
    row = report.row("passage")
    assert row is not None
    assert row.metrics["f1"].mean is not None
    assert row.metrics["f1"].low is None


def test_the_report_survives_its_json(full: Report) -> None:
    report = full
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.machine == MACHINE


def test_the_same_run_gives_the_same_report(full: Report, full_store: ArtifactStore) -> None:
    assert build_report(full_store, "demo") == full


def test_diversity_falls_when_edits_repeat_themselves() -> None:
    assert distinct_share(["a b c", "d e f"], 2) == 1.0
    assert distinct_share(["a b c", "a b c"], 2) == 0.5
    assert distinct_share(["a", ""], 2) is None


def test_repeated_text_shows_in_scripts_without_spaces() -> None:
    assert distinct_share(["灯塔守卫者", "灯塔守卫者"], 2) == 0.5


def test_a_spread_of_one_value_is_that_value_and_of_none_is_missing() -> None:
    only = spread([4.0])
    assert only is not None
    assert (
        only.minimum,
        only.lower_quartile,
        only.median,
        only.upper_quartile,
        only.maximum,
        only.mean,
    ) == (4.0,) * 6
    assert spread([]) is None


def test_a_warm_start_is_said_to_be_supervised_wherever_round_zero_is_shown(
    store: ArtifactStore,
) -> None:
    report = report_of(store, warm=True, rounds=1)
    first, later = report.row("edit-0"), report.row("edit-1")
    assert first is not None and later is not None
    assert first.label == "self-edits, round 0 (warm start, supervised)"
    assert later.label == "self-edits, round 1"
    assert report.headline.endswith(
        "Round 0 is a warm start, supervised: it has learnt gold questions."
    )
    assert report.gold_rows == 40 and report.remarks == ("warm start, supervised",)
    assert report.writer(0) == "policy of round 0 (warm start, supervised)"
    assert report.writer(1) == "policy of round 1"
    assert [stage_name(stage) for stage in report.stages][:2] == [
        "round 0, warm start",
        "round 0, validate",
    ]


def test_pairs_and_cover_are_those_of_the_records(full: Report, full_store: ArtifactStore) -> None:
    shape = next(each for each in full.shapes if (each.stage, each.round) == ("validate", 0))
    pairs, covers = [], []
    for record in records_of(full_store, "r0-validate"):
        (edit,) = record.edits
        answers = [example.answer for example in edit.examples]
        pairs.append(len(answers))
        covered = [
            any(f" {asked.golds[0]} " in f" {answer} " for answer in answers)
            for asked in record.baseline.answers
        ]
        covers.append(sum(covered) / len(covered))
    assert shape.pairs == pytest.approx(mean([float(each) for each in pairs])) and shape.pairs > 1
    assert shape.cover == pytest.approx(mean(covers)) and 0.1 < shape.cover < 0.9


def test_edits_without_a_pair_have_no_pairs_and_no_cover(store: ArtifactStore) -> None:
    shape = report_of(store, invalid=1.0, stages_done=1).shapes[0]
    assert (shape.pairs, shape.cover) == (None, None)


def test_a_round_shows_the_parts_of_the_highest_and_of_the_lowest_credit(
    store: ArtifactStore,
) -> None:
    rollout = report_of(store, credit="part", rounds=1, gain=0.3).rollouts[0]
    best = [part.credit for part in rollout.best_parts]
    worst = [part.credit for part in rollout.worst_parts]
    assert len(best) == len(worst) == 3
    assert best == sorted(best, reverse=True) and worst == sorted(worst)
    assert best[-1] >= worst[-1] and best[0] > 0
    assert any(part.learnt for part in rollout.best_parts)
    assert not any(part.learnt for part in rollout.worst_parts if part.credit < 0)


def test_where_whole_edits_are_chosen_no_part_is_shown_by_its_credit(full: Report) -> None:
    assert all(rollout.best_parts == rollout.worst_parts == () for rollout in full.rollouts)


def test_a_part_is_shown_with_the_sentence_that_it_was_asked_on(store: ArtifactStore) -> None:
    make_run(store, by_sentence=True, rounds=1, train_passages=2, passages=2)
    record = records_of(store, "r1-rollout")[0]
    sentences = {group.asked_on for group in part_groups(record, record.edits[0], ())}
    assert len(sentences) > 1
    assert {asked_on(record.parts, part) for part in range(len(record.parts))} == sentences


def test_of_an_edit_with_very_many_examples_the_first_ones_are_shown_and_all_are_counted(
    full_store: ArtifactStore, full: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = [edit for group in full.rollout_details for one in group.passages for edit in one.edits]
    longest = max(edits, key=lambda edit: len(edit.examples))
    first = longest.examples[0]
    room = len(first.prompt) + len(first.completion)
    monkeypatch.setattr("seal.report.numbers.details.MAX_EXAMPLE_CHARACTERS", room)
    again = [
        edit
        for group in build_report(full_store, "demo").rollout_details
        for one in group.passages
        for edit in one.edits
    ]
    shown = again[edits.index(longest)]
    assert (shown.examples, shown.examples_total) == ((first,), len(longest.examples))
    assert shown.examples_total > 1
