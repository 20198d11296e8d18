"""The benchmark harness on a tiny random model at the smallest sizes.

Every figure is measured once, no time is compared.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_model import save_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import (
    active_runs,
    agreement,
    common,
    controller,
    data,
    exactness,
    figures,
    ranks,
    reference,
    render,
    run,
    sizes,
    step_profile,
    training_speed,
)
from benchmarks.common import Setting, Timing
from benchmarks.flops import count_weights
from benchmarks.scaling import equal_cases, time_steps
from seal.engine.precision import compute_dtype
from seal.errors import InvalidInput, NotFound, PreconditionFailed
from seal.settings import LoraSettings

NEED_A_CLUSTER = (*controller.KEYS, *active_runs.KEYS)
LOG = {
    "articles": [
        {
            "title": f"Town {number}",
            "context": f"Town {number} has {number} mills. It lies on a river.",
            "completions": [
                {
                    "text": f"1. Town {number} grinds corn.\n2. The river turns {number} mills.\n",
                    "questions": [
                        {"question": f"How many mills has Town {number}?", "answer": str(number)}
                    ]
                    * 3
                    + [{"question": f"Where lies Town {number}?", "answer": "on a river"}],
                },
                {"text": f"Town {number} is wet." if number else "---", "questions": []},
            ],
        }
        for number in range(3)
    ]
}
SMALLEST = sizes.Sizes(
    samples=2,
    slots=2,
    edits=3,
    epochs=1,
    reference_steps=2,
    reference_tokens=64,
    exact_adapters=3,
    exact_slots=2,
    exact_epochs=1,
    evaluation_adapters=2,
    evaluation_reference_adapters=1,
    evaluation_queries=2,
    answer_tokens=3,
    evaluation_epochs=1,
    agreement_contexts=2,
    agreement_edits=2,
    agreement_epochs=1,
    agreement_resamples=20,
    service_adapters=2,
    front_door_clients=1,
    front_door_alone=1,
    few_shot_samples=2,
    few_shot_loops=2,
    few_shot_rows=2,
    scaling_slots=(1, 2),
    scaling_row_tokens=12,
    scaling_steps=1,
    scaling_lengths=(8, 16),
    scaling_length_slots=2,
    scaling_length_tokens=32,
    profile_steps=1,
    memory_points=((1, 8), (2, 8)),
)

pytestmark = pytest.mark.timeout(600)  # one fixture makes all of it, in minutes


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("log") / "rank_iter0.json"
    file.write_text(json.dumps(LOG))
    return file


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, log_file: Path) -> Setting:
    directory = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return Setting(
        model=str(directory),
        directory=directory,
        dtype=compute_dtype("auto", "cpu"),
        sizes=SMALLEST,
        cases=data.load_cases(edits=log_file, passages=None),
        provenance=figures.Provenance(
            command="make bench", machine="a machine", data="a log", model="tiny"
        ),
        report=lambda what, done, total: None,
    )


@pytest.fixture(scope="module")
def measured(setting: Setting) -> figures.Figures:
    """Every figure that needs no cluster, measured once; P7 against the clean mode itself."""
    result: figures.Figures = {}
    for group in run.GROUPS:
        if set(group.keys) <= set(NEED_A_CLUSTER):
            continue
        if group.keys == agreement.KEYS:
            result |= agreement.measure(setting, group.keys, mode="clean")
        else:
            result |= group.measure(setting, group.keys)
    return result


def test_every_figure_is_measured_on_both_sides(measured: figures.Figures) -> None:
    assert set(measured) == set(figures.KEYS) - set(NEED_A_CLUSTER)
    for key, figure in measured.items():
        numbers = (
            figure.value,
            *figure.samples,
            *(value for side in figure.sides for value in side.samples),
        )
        assert all(
            math.isfinite(number) and (number > 0 or key in {"P5", "P7"}) for number in numbers
        ), key
        assert figure.command == "make bench"
    for key in ("P1", "P2", "P3", "P4", "P6", "P8", "few-shot"):
        assert [len(side.samples) for side in measured[key].sides] == [2, 2], key
        assert len(measured[key].samples) == 2
    assert len(measured["P5"].samples) == SMALLEST.exact_adapters
    assert [point[0] for point in measured["slots"].curves[0].points] == [1, 2]
    assert [point[0] for point in measured["lengths"].curves[0].points] == [8, 16]


def test_batched_in_float32_is_training_alone_and_another_seed_is_not(
    setting: Setting, measured: figures.Figures
) -> None:
    assert measured["P5"].met
    model = common.load_model(setting, torch.float32)
    case = setting.cases.take(1)[0]
    with common.engine_on(model, slots=1) as engine:
        results = common.train_all(
            engine, [common.training_request(case, epochs=1, seed=seed) for seed in (0, 1)]
        )
    one, other = (
        exactness.flat(result.adapter) for result in results if result.adapter is not None
    )
    assert exactness.relative_difference(one, other) > 0.1


def test_a_steps_time_goes_to_the_part_that_an_operation_is_called_for() -> None:
    def event(
        name: str, microseconds: float, parent: SimpleNamespace | None = None
    ) -> SimpleNamespace:
        return SimpleNamespace(name=name, self_cpu_time_total=microseconds, cpu_parent=parent)

    step = event("benchmarks.step", 10)
    linear, attention = (
        event("_SlotLinearFunction", 20, step),
        event("PackedAttentionBackward", 40, step),
    )
    loss = event("seal.loss", 0, step)
    events = [
        step,
        linear,
        attention,
        loss,
        event("aten::mm", 100, event("aten::linear", 0, linear)),
        event("aten::bmm", 200, linear),
    ]
    events += [
        event("aten::mm", 400, loss),
        event("aten::bmm", 800, attention),
        event("aten::silu", 1600, step),
    ]
    parts = step_profile.sum_parts(events, adapter_steps=2)
    assert {name: round(seconds * 2e6) for name, seconds in parts.items()} == {
        step_profile.REST: 1610,
        "adapters": 220,
        "attention": 840,
        step_profile.HEAD: 400,
        step_profile.FROZEN: 100,
    }


def test_a_profiled_step_has_all_its_parts(measured: figures.Figures) -> None:
    curves = {curve.name: curve.points for curve in measured["step"].curves}
    assert set(curves) == {
        step_profile.FROZEN,
        step_profile.REST,
        *(part for _, part in step_profile.SPANS),
    }
    assert all(milliseconds > 0 for points in curves.values() for _, milliseconds in points)
    assert 0 < measured["step"].value < 100


def test_a_mode_compared_with_itself_has_no_drop(measured: figures.Figures) -> None:
    assert measured["P7"].met
    assert "drop 0.000" in measured["P7"].details["log p"]


def test_both_sides_of_the_evaluation_score_the_same_answers_alike(
    measured: figures.Figures,
) -> None:
    words = measured["P6"].details["largest difference of a mean log p between the sides"]
    assert float(words.split()[0]) < 0.05
    assert "of 2 gold answers" in words  # one adapter, the same in both rounds


def test_the_reference_pads_with_the_end_token_and_learns_the_pads(setting: Setting) -> None:
    tokenizer = AutoTokenizer.from_pretrained(setting.directory)
    row = reference.PaddedRows(tokenizer, ["corn"], 12)[0]
    assert row["input_ids"].tolist()[-8:] == [tokenizer.eos_token_id] * 8
    assert row["labels"].tolist() == row["input_ids"].tolist()
    assert row["attention_mask"].sum() == 4


def test_the_reference_starts_every_edit_from_the_same_base(setting: Setting) -> None:
    trainer = reference.ReferenceTrainer.load(
        setting.directory, inner=common.PUBLISHED, dtype=torch.float32, row_tokens=16
    )
    trainer.step_seconds(["corn", "mills"], steps=2)
    base = AutoModelForCausalLM.from_pretrained(setting.directory, dtype=torch.float32)
    names = dict(base.named_parameters())
    left = dict(trainer._base.named_parameters())
    assert left.keys() == names.keys()
    assert all(torch.equal(left[name], names[name]) for name in names)


def test_flop_are_counted_from_the_shapes(setting: Setting) -> None:
    weights = count_weights(
        setting.directory, LoraSettings(rank=2, target_modules=("q_proj", "v_proj"))
    )
    per_layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48  # q, k and v, o, the MLP
    assert (weights.linears, weights.lora, weights.head) == (
        2 * per_layer,
        2 * 2 * (64 + 48),
        259 * 32,
    )
    assert (
        weights.training_flop(tokens=10, targets=3)
        == 10 * (4 * weights.linears + 6 * weights.lora) + 3 * 4 * weights.head
    )


def test_slots_in_use_are_at_most_the_slots_and_one_for_one_adapter(setting: Setting) -> None:
    case = setting.cases.take(1)[0]
    requests = [common.training_request(case, epochs=20, seed=seed) for seed in range(6)]
    with common.engine_on(common.load_model(setting), slots=3) as engine:
        many, one = (
            common.time_stream(engine, requests),
            common.time_stream(engine, requests[:1]),
        )
    assert 1.0 < many.slots_in_use <= 3.0
    assert 0.0 < one.slots_in_use <= 1.0


def test_one_slot_is_timed_to_the_end_of_its_last_edit(setting: Setting) -> None:
    cases = setting.cases.take(2)
    requests = [common.training_request(case, epochs=2, seed=0) for case in cases]
    with common.engine_on(common.load_model(setting), slots=1) as engine:
        timing = common.time_stream(engine, requests)
    assert timing.count == 2 * sum(len(case.examples) for case in cases)


def test_the_single_slot_trains_each_of_the_engines_edits_once(setting: Setting) -> None:
    cases = setting.cases.take(5)
    parts = training_speed._parts(cases, 2)
    assert sorted(case.case_id for part in parts for case in part) == sorted(
        case.case_id for case in cases
    )
    assert len(parts) == 2


def test_equal_rows_have_exactly_the_asked_length(setting: Setting) -> None:
    tokenizer = AutoTokenizer.from_pretrained(setting.directory)
    cases = equal_cases(tokenizer, ["Corn is ground in mills."], slots=2, steps=2, tokens=9)
    timing = time_steps(common.load_model(setting), cases)
    assert (timing.count, timing.tokens) == (4, 4 * 9)


def test_sides_take_turns_and_every_other_round_backwards() -> None:
    calls: list[str] = []

    def side(name: str) -> Timing:
        calls.append(name)
        return Timing(2.0, 4.0)

    timings = common.interleave(
        {"a": lambda _: side("a"), "b": lambda _: side("b")},
        rounds=3,
        report=lambda done, total: None,
    )
    assert "".join(calls) == "abbaab"
    assert [timing.each for timing in timings["a"]] == [0.5, 0.5, 0.5]


def test_a_log_gives_edits_with_their_passage_and_distinct_questions(log_file: Path) -> None:
    cases = data.load_cases(edits=log_file, passages=None).cases
    assert len(cases) == 5  # the edit of nothing but a separator is dropped
    case = next(case for case in cases if case.context.title == "Town 2" and case.candidate == 0)
    passage = "Town 2\nTown 2 has 2 mills. It lies on a river."
    assert case.examples == (
        ("", "Town 2\nTown 2 grinds corn."),
        ("", "Town 2\nThe river turns 2 mills."),
        ("", passage),
    )
    assert [query.question for query in case.context.queries] == [
        "How many mills has Town 2?",
        "Where lies Town 2?",
    ]


def test_without_a_log_edits_are_derived_from_the_corpus_the_same_every_time() -> None:
    first, again = (data.load_cases(edits=None, passages=None) for _ in range(2))
    assert first == again
    assert len({case.examples for case in first.cases}) > 150
    assert "embedded corpus" in first.source
    assert len(first.grid(4, 3, queries=5)) == 12


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        data.load_cases(edits=tmp_path / "none.json", passages=None)
    file = tmp_path / "log.json"
    file.write_text('{"articles": [{"title": "x"}]}')
    with pytest.raises(InvalidInput, match="no SEAL log"):
        data.load_cases(edits=file, passages=None)


def test_ranks_share_ties_and_correlations_know_their_sign() -> None:
    assert ranks.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    rising, falling = np.array([1.0, 2.0, 9.0]), np.array([5.0, 4.0, 0.0])
    assert ranks.spearman(rising, rising**3) == pytest.approx(1.0)
    assert ranks.spearman(rising, falling) == pytest.approx(-1.0)
    assert math.isnan(ranks.spearman(rising, np.ones(3)))


def test_a_mode_that_scrambles_the_rewards_shows_a_drop() -> None:
    generator = np.random.default_rng(0)
    quality_E = generator.normal(size=40)
    contexts = [str(index // 4) for index in range(40)]
    clean = [quality_E + 0.1 * generator.normal(size=40) for _ in range(2)]
    scrambled = [generator.permutation(one_E) for one_E in clean]
    intervals = ranks.bootstrap(
        contexts,
        lambda index_B: {
            "drop": ranks.agreement(
                [one[index_B] for one in clean], [one[index_B] for one in scrambled]
            ).drop
        },
        resamples=200,
    )
    assert intervals["drop"][0] > 0.2
    assert ranks.within_contexts(quality_E, contexts).reshape(10, 4).mean(axis=1) == pytest.approx(
        0.0
    )


def test_sizes_are_overridden_by_name_and_refused_by_name() -> None:
    assert sizes.parse_sizes(["slots=3", "memory_points=[[1, 8]]"]).memory_points == ((1, 8),)
    assert sizes.parse_sizes(["samples=7"], quick=True).samples == 7
    with pytest.raises(InvalidInput, match="slots"):
        sizes.parse_sizes(["slots=0"])
    with pytest.raises(InvalidInput, match="sets no size"):
        sizes.parse_sizes(["slotz=3"])
    with pytest.raises(InvalidInput, match="'P9' is no figure"):
        run.parse_only("P1,P9")


def test_a_rerun_keeps_the_figures_that_it_does_not_measure_and_the_notes(
    tmp_path: Path, setting: Setting, measured: figures.Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("intro\n\n## P2\n\nWaits for memory.\n\n## about\n\nOn an idle machine.\n")
    docs = tmp_path / "docs"
    figures.write_figures(docs / run.JSON_FILE, measured)
    again = measured["P5"].model_copy(update={"value": 0.5, "met": False})
    monkeypatch.setattr(
        run,
        "GROUPS",
        (
            run.Group(("P5",), lambda setting, wanted: {"P5": again}, "Both sides train."),
            run.Group(("P6",), _fails, ""),
        ),
    )
    result, errors = run.run_benchmarks(setting, ("P5", "P6"), docs=docs, notes=notes)
    assert [str(error) for error in errors] == ["not today"]
    assert result["P1"] == measured["P1"]
    stored = json.loads((docs / run.JSON_FILE).read_text())
    assert list(stored) == [key for key in figures.KEYS if key in measured]
    assert all({"value", "unit", "samples", "command"} <= set(figure) for figure in stored.values())
    assert stored["P5"]["value"] == 0.5
    page = (docs / run.PAGE_FILE).read_text()
    assert "| P5 |" in page and "| **0.500** | **no** |" in page
    assert page.rstrip().endswith("Both sides train.")
    assert (
        page.index("On an idle machine.")
        < page.index("## P1:")
        < page.index("Waits for memory.")
        < page.index("## P3:")
    )
    assert "<svg" in (docs / run.PLOT_FILE).read_text()


def _fails(setting: Setting, wanted: object) -> figures.Figures:
    raise PreconditionFailed("not today")


def test_the_page_says_each_figure_with_its_goal_its_sides_and_its_samples(
    setting: Setting,
) -> None:
    sides = (
        figures.Side(name="slow", unit="s", samples=(6.0, 8.0, 7.0)),
        figures.Side(name="fast", unit="s", samples=(0.1, 0.1, 0.1)),
    )
    figure = common.make_figure(setting, "P1", [60.0, 80.0, 70.0], sides=sides, sizes=("samples",))
    assert (figure.value, figure.met, figure.goal) == (70.0, True, ">= 70x")
    page = render.render_markdown({"P1": figure}, {})
    rows = [
        line
        for line in page.splitlines()
        if line.startswith(tuple(f"| {key} " for key in figures.GOALS))
    ]
    assert [row.split(" | ")[0] for row in rows] == [f"| {key}" for key in figures.GOALS]
    assert rows[0].endswith("| >= 70x | 120x | **70.0x** | yes |")
    assert rows[1].endswith("| – | – |")
    assert "| slow | 7.00 | s | 6.00, 8.00, 7.00 |" in page
    assert page.count("a machine") == 1  # once for all
    other = figure.model_copy(update={"machine": "another machine"})
    both = render.render_markdown({"P1": figure, "P2": other}, {})
    assert (
        both.index("Machine: a machine")
        < both.index("## P2")
        < both.index("Machine: another machine")
    )
    short = common.make_figure(replace(setting), "P8", [1.2])
    assert short.met is False


def test_notes_for_a_figure_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("## P11\n\ntext\n")
    with pytest.raises(InvalidInput, match="P11"):
        render.read_notes(notes)
    assert render.read_notes(run.NOTES) is not None


def test_what_takes_long_is_measured_by_name_only() -> None:
    assert run.parse_only("") == figures.DEFAULT_KEYS
    assert not set(figures.DEFAULT_KEYS) & set(figures.BY_NAME_ONLY)
    assert run.parse_only("P7,P1") == ("P1", "P7")


def test_more_is_asked_of_many_slots_where_a_processor_has_matrix_units() -> None:
    goal = figures.GOALS["P2"]
    assert (goal.on(matrix_units=False).must, goal.on(matrix_units=True).must) == (2.2, 3)
    assert figures.GOALS["P1"].on(matrix_units=True) == figures.GOALS["P1"]
