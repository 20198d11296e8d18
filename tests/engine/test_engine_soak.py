"""Many adapters of several runs through few slots: none lost, no tensor kept, the runs in turns.

The long form is `python -m benchmarks.soak`.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_model import tiny_model
from typer import Typer
from typer.testing import CliRunner

from benchmarks.soak.__main__ import main, make_requests, synthetic_cases
from benchmarks.soak.figures import Served, largest_lead, round_robin, summarise
from benchmarks.soak.run import soak
from seal.engine import Engine
from seal.settings import EngineSettings, LoraSettings, OptimizerSettings

SLOTS, ADAPTERS = 4, 60
LORA = LoraSettings(rank=2, alpha=4, target_modules=("q_proj", "v_proj"))


def live_tensor_bytes() -> int:
    """Bytes of the storages of all tensors that Python can reach."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    return sum(
        {
            tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors
        }.values()
    )


def short(request):
    """The same with little text, so that sixty take seconds."""
    examples = tuple((prompt, text[:24]) for prompt, text in request.examples[:6])
    return replace(
        request, examples=examples, lora=LORA, optimizer=OptimizerSettings(epochs=1, batch_size=2)
    )


def test_sixty_adapters_through_four_slots_are_all_served_in_turn_and_leave_no_tensor_behind():
    requests = [
        short(request) for request in make_requests(synthetic_cases(ADAPTERS), runs=3, epochs=1)
    ]
    longer = {"epochs": 3}  # a cancelled one must not be done after its first step
    requests[::20] = [
        replace(item, optimizer=item.optimizer.model_copy(update=longer)) for item in requests[::20]
    ]
    ends = 0
    last = 0

    def measure() -> int:
        nonlocal ends, last
        ends += 1
        last = live_tensor_bytes() if ends % 5 == 0 else last
        return last

    engine = Engine(
        tiny_model(),
        EngineSettings(slots=SLOTS, dtype="float32", max_queue=ADAPTERS + 1, max_row_tokens=64),
    )
    try:
        served = soak(engine, requests, cancel_every=20, stall_seconds=60, measure=measure)
    finally:
        engine.close()
    figures = summarise(served, [request.run for request in requests])
    assert (figures.lost, figures.outcomes) == (0, {"ok": ADAPTERS - 3, "cancelled": 3})
    assert figures.largest_lead == 1
    assert [turns.admission_deviation for turns in figures.turns.values()] == [0, 0, 0]
    adapter_bytes = 4 * tiny_model().size.parameters(LORA.rank, LORA.target_modules)
    steady = [item.measured_bytes for item in served[ADAPTERS // 4 :]]
    # the results of one step are there together when the first of them is handed out
    assert max(steady) - min(steady) <= SLOTS * adapter_bytes


def records(runs: str, *, leak_bytes: int = 0) -> tuple[Served, ...]:
    """One adapter per letter, admitted and ended in this order."""
    order = sorted(range(len(runs)), key=lambda place: (runs[place], place))
    numbers = {place: number for number, place in enumerate(order)}
    return tuple(
        Served(
            number=numbers[place],
            run=run,
            outcome="ok",
            admitted=place,
            ended=place,
            measured_bytes=10**8 + place * leak_bytes,
        )
        for place, run in enumerate(runs)
    )


def queued(runs: str) -> list[str]:
    return sorted(runs)


def test_the_figures_tell_a_fair_order_from_an_unfair_one():
    fair = summarise(records("abcabcabab"), queued("abcabcabab"))
    assert (fair.largest_lead, {turns.admission_deviation for turns in fair.turns.values()}) == (
        1,
        {0},
    )
    unfair = summarise(records("aaaabbbbcc"), queued("abcabcabab"))
    assert unfair.largest_lead == 4
    assert unfair.turns["a"].admission_deviation == 5
    assert round_robin("aaabbc") == [0, 3, 5, 1, 4, 2]
    assert largest_lead("abab", Counter("aabb")) == 1


def test_the_figures_tell_a_leak_and_a_lost_adapter():
    runs = "ab" * 50
    flat, leaking = (
        summarise(records(runs, leak_bytes=leak), queued(runs)) for leak in (0, 50_000)
    )
    assert flat.slope_mb_per_100 == pytest.approx(0.0, abs=1e-9)
    assert leaking.slope_mb_per_100 == pytest.approx(5.0)
    assert leaking.last_quarter_mb - leaking.first_quarter_mb == pytest.approx(3.0)
    assert flat.lost == 0
    assert summarise(records(runs)[:-2], queued(runs)).lost == 2


def test_what_is_queued_is_mixed_as_the_published_systems_edits_are():
    lengths = [len(case.examples) for case in synthetic_cases(2000)]
    assert sorted(lengths)[1000] == 7
    assert 8.2 < sum(lengths) / len(lengths) < 9.0
    assert max(lengths) <= 69
    runs = Counter(request.run for request in make_requests(synthetic_cases(100), runs=4, epochs=1))
    assert list(runs.values()) == [40, 30, 20, 10]


def test_the_command_writes_its_figures_and_its_plot(tmp_path):
    app = Typer()
    app.command()(main)
    arguments = [
        "--adapters",
        "10",
        "--slots",
        "4",
        "--epochs",
        "1",
        "--runs",
        "2",
        "--out",
        str(tmp_path),
        "--output",
        "json",
    ]
    result = CliRunner().invoke(app, [*arguments, "--cancel-every", "0"])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["outcomes"] == {"ok": 10}
    assert figures["turns"]["run-1"]["adapters"] == 7
    assert len(figures["memory_mb"]) == 10
    assert "<svg" in (tmp_path / "soak.svg").read_text()
