"""P1-P4: the inner loop's training, one interleaved run for all four.

Every round runs these sides, and the figures share them:

- *engine*: `edits` real edits (rows as `seal.domains.knowledge` makes them, published settings:
  q_proj and v_proj, rank 32, batch 1, AdamW) pass through `slots` slots, `epochs` epochs each.
  Slots are refilled as edits end, and the round lasts until a slot is left empty (`time_stream`):
  tokenising, initial weights and the copy of the finished adapters are in it, the end of the list
  is not.
- *reference* (P1): transformers Trainer + PEFT, see `benchmarks.reference`; one of the same edits
  per round, `reference_steps` steps. Its step does not depend on the edit: every row is padded to
  2,048 tokens. Construction and tokenising are left out of it.
- *single* (P2): the same engine with one slot. Over all rounds it trains exactly the engine's
  edits, each once: a round takes every `samples`-th by size.
- *equal* (P4): the engine, in the same way, with the same number of edits and rows, but every row
  has the mean length.

P1 and P2 compare seconds per optimiser step of one adapter, P4 seconds per real token. Ten epochs
are ten times the same steps, so the seconds of a whole edit are steps times seconds per step on
both sides. P3 is FLOP (see `benchmarks.flops`) per second of the engine's rounds over the GEMM peak
in the compute type, measured right before and after each (the larger of the two).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median

from transformers import AutoTokenizer

from benchmarks.common import (
    PUBLISHED,
    Setting,
    Timing,
    engine_on,
    interleave,
    load_model,
    make_figure,
    ratios,
    time_stream,
    train_all,
    training_request,
)
from benchmarks.data import EditCase, documents_of_length
from benchmarks.figures import Figure, Figures, Side
from benchmarks.flops import count_weights
from benchmarks.reference import ReferenceTrainer
from seal.engine.model import FrozenModel
from seal.engine.peak import measure_gemm_peak
from seal.engine.precision import dtype_name
from seal.engine.threads import in_parallel

KEYS = ("P1", "P2", "P3", "P4")
PUBLISHED_EPOCHS = PUBLISHED.optimizer.epochs
_ENGINE, _REFERENCE, _SINGLE, _EQUAL = "engine", "reference", "single", "equal"
_SIZES = ("samples", "slots", "edits", "epochs")


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Run the sides that the wanted figures need."""
    cases = setting.cases.take(setting.sizes.edits)
    sides = _sides(setting, cases, wanted)
    timings = interleave(
        sides,
        rounds=setting.sizes.samples,
        report=lambda done, total: setting.report("P1-P4 training", done, total),
    )
    run = _Run(setting, cases, timings)
    makers = {
        "P1": run.against_reference,
        "P2": run.against_single,
        "P3": run.share_of_peak,
        "P4": run.against_equal,
    }
    return {key: make() for key, make in makers.items() if key in wanted}


def _sides(
    setting: Setting, cases: Sequence[EditCase], wanted: Collection[str]
) -> dict[str, Callable[[int], Timing]]:
    """What one round runs."""
    sizes = setting.sizes
    model = load_model(setting)
    sides: dict[str, Callable[[int], Timing]] = {
        _ENGINE: lambda number: _engine_round(setting, model, sizes.slots, cases, number)
    }
    if "P1" in wanted:
        reference = ReferenceTrainer.load(
            setting.directory,
            inner=PUBLISHED,
            dtype=setting.dtype,
            row_tokens=sizes.reference_tokens,
        )
        in_parallel(
            lambda: reference.step_seconds(_texts(cases[0]), steps=1)
        )  # first calls compile kernels and allocate
        sides[_REFERENCE] = lambda number: Timing(
            reference.step_seconds(_texts(cases[number % len(cases)]), steps=sizes.reference_steps),
            sizes.reference_steps,
        )
    if "P2" in wanted:
        parts = _parts(cases, sizes.samples)
        sides[_SINGLE] = lambda number: _engine_round(
            setting, model, 1, parts[number % len(parts)], number
        )
    if "P4" in wanted:
        equal = _equal_cases(setting, cases)
        sides[_EQUAL] = lambda number: _engine_round(setting, model, sizes.slots, equal, number)
    return sides


def _engine_round(
    setting: Setting, model: FrozenModel, slots: int, cases: Sequence[EditCase], number: int
) -> Timing:
    """The edits through a fresh engine whose slots have all been in use before.

    A server starts once, so its first use of a slot does not count.
    """
    warm = [replace(case, examples=case.examples[:1]) for case in cases[:slots]]
    with engine_on(model, slots=slots) as engine:
        train_all(engine, [training_request(case, epochs=1, seed=0) for case in warm])
        before = measure_gemm_peak(dtype=setting.dtype)
        timing = time_stream(
            engine,
            [training_request(case, epochs=setting.sizes.epochs, seed=number) for case in cases],
        )
    return replace(timing, teraflops=max(before, measure_gemm_peak(dtype=setting.dtype)))


def _texts(case: EditCase) -> list[str]:
    return [completion for _, completion in case.examples]


def _parts(cases: Sequence[EditCase], parts: int) -> list[list[EditCase]]:
    """The edits in parts of like mix: sorted by size and dealt out, every edit in one."""
    by_size = sorted(cases, key=lambda case: sum(map(len, _texts(case))))
    return [dealt for start in range(parts) if (dealt := by_size[start::parts])]


def _equal_cases(setting: Setting, cases: Sequence[EditCase]) -> list[EditCase]:
    """The edits with as many rows each, every row as long as the mean."""
    tokenizer = AutoTokenizer.from_pretrained(setting.directory)
    rows = [text for case in cases for text in _texts(case)]
    mean = round(sum(len(ids) + 1 for ids in tokenizer(rows).input_ids) / len(rows))
    texts = iter(documents_of_length(tokenizer, rows, tokens=mean, count=len(rows)))
    return [
        replace(case, examples=tuple(("", next(texts)) for _ in case.examples)) for case in cases
    ]


@dataclass(frozen=True)
class _Run:
    """The timings of all rounds, by side, and the figures in them."""

    setting: Setting
    cases: Sequence[EditCase]
    timings: dict[str, tuple[Timing, ...]]

    @property
    def _epoch_steps(self) -> float:
        """Optimiser steps per epoch of the mean edit."""
        return sum(len(case.examples) for case in self.cases) / len(self.cases)

    def _side(self, name: str, label: str, *, per_token: bool = False) -> Side:
        if per_token:
            return Side(
                name=label,
                unit="ms per real token",
                samples=tuple(1e3 * t.seconds / t.tokens for t in self.timings[name]),
            )
        return Side(
            name=label, unit="s per adapter-step", samples=tuple(t.each for t in self.timings[name])
        )

    def _in_use(self, name: str) -> str:
        """Slots that held an adapter, on average over a round's time."""
        in_use = median(timing.slots_in_use for timing in self.timings[name])
        return f"{in_use:.1f} of {self.setting.sizes.slots} on average over time"

    def against_reference(self) -> Figure:
        """P1."""
        reference = self._side(
            _REFERENCE,
            f"transformers Trainer + PEFT, padded to {self.setting.sizes.reference_tokens:,}",
        )
        engine = self._side(_ENGINE, f"engine, {self.setting.sizes.slots} slots")
        steps = self._epoch_steps * PUBLISHED_EPOCHS
        return make_figure(
            self.setting,
            "P1",
            ratios(self.timings[_REFERENCE], self.timings[_ENGINE]),
            sides=(reference, engine),
            details={
                "one mean edit": f"{self._epoch_steps:.1f} rows, {steps:.0f} steps in "
                f"{PUBLISHED_EPOCHS} epochs",
                "seconds per mean edit, reference": f"{reference.median * steps:.1f}",
                "seconds per mean edit, engine": f"{engine.median * steps:.2f}",
            },
            sizes=(*_SIZES, "reference_steps", "reference_tokens"),
        )

    def against_single(self) -> Figure:
        """P2."""
        single, engine = self.timings[_SINGLE], self.timings[_ENGINE]
        pooled = sum(t.seconds for t in single) / sum(t.count for t in single)
        per_token = [
            (s.seconds / s.tokens) / (e.seconds / e.tokens)
            for s, e in zip(single, engine, strict=True)
        ]
        return make_figure(
            self.setting,
            "P2",
            ratios(single, engine),
            sides=(
                self._side(_SINGLE, "engine, 1 slot"),
                self._side(_ENGINE, f"engine, {self.setting.sizes.slots} slots"),
            ),
            details={
                "all rounds of the single slot together": (
                    f"{pooled / median(t.each for t in engine):.2f}x"
                ),
                "per real token": f"{median(per_token):.2f}x",
                "slots in use": self._in_use(_ENGINE),
            },
            sizes=_SIZES,
        )

    def share_of_peak(self) -> Figure:
        """P3."""
        engine = self.timings[_ENGINE]
        weights = count_weights(self.setting.directory, PUBLISHED.lora)
        # a step is one row, and all of its tokens but the first are targets
        flop = [
            weights.training_flop(tokens=timing.tokens, targets=timing.tokens - round(timing.count))
            for timing in engine
        ]
        rates = tuple(one / timing.seconds / 1e12 for one, timing in zip(flop, engine, strict=True))
        peaks = tuple(timing.teraflops for timing in engine)
        return make_figure(
            self.setting,
            "P3",
            [100 * rate / peak for rate, peak in zip(rates, peaks, strict=True)],
            sides=(
                Side(
                    name=f"engine, {self.setting.sizes.slots} slots",
                    unit="TFLOP/s of real tokens",
                    samples=rates,
                ),
                Side(
                    name=f"{dtype_name(self.setting.dtype)} GEMM 2048 x 2048 x 2048",
                    unit="TFLOP/s",
                    samples=peaks,
                ),
            ),
            details={
                "real tokens per second": (
                    f"{median(timing.tokens / timing.seconds for timing in engine):.0f}"
                ),
                "FLOP per real token": f"{flop[0] / engine[0].tokens / 1e9:.3f} G",
                "weights": f"{weights.linears / 1e6:.1f} M frozen linear, "
                f"{weights.lora / 1e6:.2f} M LoRA, {weights.head / 1e6:.1f} M head",
            },
            sizes=_SIZES,
            reading="median of the rounds' shares",
        )

    def against_equal(self) -> Figure:
        """P4."""
        real, equal = self.timings[_ENGINE], self.timings[_EQUAL]
        return make_figure(
            self.setting,
            "P4",
            [
                (r.seconds / r.tokens) / (e.seconds / e.tokens)
                for r, e in zip(real, equal, strict=True)
            ],
            sides=(
                self._side(_ENGINE, "real length mix", per_token=True),
                self._side(_EQUAL, "equal lengths", per_token=True),
            ),
            details={
                "tokens per row": f"{real[0].tokens / real[0].count:.1f} on average (real), "
                f"{equal[0].tokens / equal[0].count:.0f} each (equal)",
                "per adapter-step": f"{median(ratios(real, equal)):.2f}x",
                "slots in use": f"{self._in_use(_ENGINE)} (real), {self._in_use(_EQUAL)} (equal)",
            },
            sizes=_SIZES,
        )
