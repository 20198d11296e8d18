"""The GPU's benchmark runs whole on a CPU; the documents say what is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cuda import __main__ as cuda
from benchmarks.cuda.bench import Bench
from benchmarks.cuda.plan import EDITS, TINY
from benchmarks.cuda.report import JSON_FILE, PAGE_FILE, Line, Report, read_report, render

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_runs_tiny_on_a_cpu_and_every_check_passes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "gpu.json"
    assert cuda.main(["--tiny", "--out", str(out)]) == 0
    report = read_report(out)
    assert [part.key for part in report.parts] == list("abcdefg")
    for part in report.parts:
        assert part.lines and not part.missing, part
    assert all(line.value > 0 for part in report.parts[1:] for line in part.lines)
    page = (out.parent / "gpu.md").read_text()
    assert page == render(report)
    assert "## Training step, 7B" in page


def test_a_part_that_fails_costs_no_other_and_is_told(tmp_path: Path) -> None:
    def broken(bench: Bench):
        yield Line(name="a figure", value=1.0)
        raise RuntimeError("CUDA error: an illegal memory access\nand more")

    def sound(bench: Bench):
        yield Line(name="another", value=2.0)

    out = tmp_path / "gpu.json"
    tasks = [cuda.Task("x", "Broken", 60, broken), cuda.Task("y", "Sound", 60, sound)]
    empty = Report(machine="m", command="c", parts=())
    report = cuda.run(Bench(TINY), empty, tasks, out)
    assert report == read_report(out)
    assert not report.sound
    assert [line.name for part in report.parts for line in part.lines] == ["a figure", "another"]
    assert report.parts[0].missing == "RuntimeError: CUDA error: an illegal memory access"
    assert "Not measured: RuntimeError" in render(report)


def test_a_part_is_written_before_the_next_begins(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"

    def first(bench: Bench):
        yield Line(name="a figure", value=1.0)

    def second(bench: Bench):
        assert [part.key for part in read_report(out).parts] == ["x"]
        raise KeyboardInterrupt
        yield

    tasks = [cuda.Task("x", "First", 60, first), cuda.Task("y", "Second", 60, second)]
    with pytest.raises(KeyboardInterrupt):
        cuda.run(Bench(TINY), Report(machine="m", command="c", parts=()), tasks, out)
    assert read_report(out).parts[0].lines[0].value == 1.0


def test_a_part_without_time_left_is_skipped_by_name(tmp_path: Path) -> None:
    def part(bench: Bench):
        yield Line(name="a figure", value=1.0)
        bench.check_time("32 slots", seconds=1000)
        raise AssertionError

    tasks = [cuda.Task("x", "Slow", 60, part), cuda.Task("y", "Late", 1, part)]
    report = cuda.run(
        Bench(TINY), Report(machine="m", command="c", parts=()), tasks, tmp_path / "o"
    )
    assert report.sound
    assert [part.missing for part in report.parts] == [
        "32 slots: the part's time was spent",
        "all of it: the part's time was spent",
    ]
    assert [len(part.lines) for part in report.parts] == [1, 0]


def test_a_check_that_does_not_pass_makes_the_run_fail() -> None:
    part = cuda.Part(
        key="a", title="t", seconds=1, lines=(Line(name="n", value=1.0, passed=False),)
    )
    report = Report(machine="m", command="c", parts=(part,))
    assert not report.sound
    assert "**failed**" in render(report)


def test_all_parts_together_take_at_most_eight_minutes() -> None:
    assert sum(task.budget_seconds for task in cuda.TASKS) <= cuda.TOTAL_SECONDS <= 8 * 60


def test_the_chosen_edits_are_as_long_as_the_logged_ones() -> None:
    rows = sum(map(len, EDITS)) / len(EDITS)
    tokens = sum(map(sum, EDITS)) / len(EDITS)
    assert (rows, tokens) == (pytest.approx(8.4, rel=0.05), pytest.approx(415, rel=0.05))


def test_the_page_is_that_of_the_measurement() -> None:
    assert (ROOT / PAGE_FILE).read_text() == render(read_report(ROOT / JSON_FILE))


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, int]]:
    """Steps of a tiny model on a device that does not exist, in a process that knows it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda.absent", "--shape", "tiny", "--slots", *"126"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_step_waits_for_the_device_once_however_many_slots_it_has(counted) -> None:
    assert [counted[slots]["waits"] for slots in ("1", "6")] == [1, 1]
    assert counted["1"]["copies"] == counted["6"]["copies"]


def test_a_further_slot_adds_its_update_and_nothing_in_the_layers(counted) -> None:
    added = counted["6"]["launches"] - counted["2"]["launches"]
    assert 0 < added <= 4 * 4  # scale, step count and AdamW of each
    layers = ("aten::_grouped_mm", "torch_attn::_varlen_attn", "aten::mul")
    two, six = (counted[slots]["by_operation"] for slots in ("2", "6"))
    assert [two[name] for name in layers] == [six[name] for name in layers]
    assert six["aten::_fused_adamw_"] == 6


def test_a_single_slot_needs_no_grouped_products_and_fewer_launches(counted) -> None:
    assert "aten::_grouped_mm" not in counted["1"]["by_operation"]
    assert counted["1"]["launches"] < counted["2"]["launches"]


def test_a_packed_pass_takes_no_more_than_the_memory_model_says(counted) -> None:
    for step in counted.values():
        assert step["targets"] < step["tokens"]
        assert 0 < step["peak_bytes"] <= step["estimated_bytes"]


def test_it_needs_few_packages_so_that_any_machine_with_a_gpu_can_run_it() -> None:
    program = (
        "import sys\n"
        "for name in ('platformdirs', 'stamina', 'grpc', 'google', 'typer', 'peft', 'pytest',\n"
        "             'pydantic_settings', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from benchmarks.cuda.__main__ import main\n"
        "main(['--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:6]) == (0, "usage:"), done.stderr[-2000:]
