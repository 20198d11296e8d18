"""The curves `slots` and `lengths`: what one more slot, and a longer row, cost.

*slots*: seconds per adapter-step with 1, 2, 4, ... slots, every row of `scaling_row_tokens` tokens.
*lengths*: seconds per real token over the row length with `scaling_length_slots` slots; a point has
about `scaling_length_tokens` tokens in all, but at least one step. Every point is an engine of its
own on the shared base model; all its trainings start together (see `held`), each has one epoch of
`steps` rows, and the seconds are those of the steps alone. Points take turns, and a point is the
median over the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from benchmarks.common import (
    Setting,
    Timing,
    engine_on,
    held,
    interleave,
    load_model,
    make_curves,
    training_request,
)
from benchmarks.data import EditCase, documents_of_length
from benchmarks.figures import CURVES, Curve, Figure, Figures
from seal.domains.base import Context
from seal.engine.model import FrozenModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEYS = ("slots", "lengths")


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """The wanted curves."""
    model = load_model(setting)
    tokenizer = AutoTokenizer.from_pretrained(setting.directory)
    makers = {"slots": _slots, "lengths": _lengths}
    return {key: make(setting, model, tokenizer) for key, make in makers.items() if key in wanted}


def equal_cases(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, slots: int, steps: int, tokens: int
) -> list[EditCase]:
    """One made-up edit per slot with `steps` rows of `tokens` tokens."""
    rows = documents_of_length(tokenizer, texts, tokens=tokens, count=slots * steps)
    nothing = Context("none", "", "", ())
    return [
        EditCase(
            f"slot-{slot}",
            nothing,
            0,
            tuple(("", text) for text in rows[slot * steps : (slot + 1) * steps]),
        )
        for slot in range(slots)
    ]


def time_steps(model: FrozenModel, cases: Sequence[EditCase]) -> Timing:
    """Engine seconds of one epoch of every edit, all at once; per adapter-step."""
    requests = [training_request(case, epochs=1, seed=0) for case in cases]
    with engine_on(model, slots=len(cases)) as engine:
        with held(engine, requests[0]):
            tasks = [engine.train(request) for request in requests]
        results = [task.future.result() for task in tasks]
    seconds = sum(result.engine_seconds for result in results)
    return Timing(
        seconds, sum(result.steps for result in results), sum(result.tokens for result in results)
    )


def _slots(setting: Setting, model: FrozenModel, tokenizer: PreTrainedTokenizerBase) -> Figure:
    sizes = setting.sizes
    points = {
        slots: equal_cases(
            tokenizer,
            _texts(setting),
            slots=slots,
            steps=sizes.scaling_steps,
            tokens=sizes.scaling_row_tokens,
        )
        for slots in sizes.scaling_slots
    }
    timings = _rounds(setting, model, points, "curve over slots")
    curve = {slots: [1e3 * timing.each for timing in each] for slots, each in timings.items()}
    first, last = min(curve), max(curve)
    return make_curves(
        setting,
        CURVES["slots"],
        [
            _curve(
                f"rows of {sizes.scaling_row_tokens} tokens", "slots", "ms per adapter-step", curve
            )
        ],
        samples=[one / other for one, other in zip(curve[first], curve[last], strict=True)],
        unit="x",
        reading=f"time of an adapter-step with {first} slot(s) over that with {last}, median of "
        "the rounds' ratios",
        sizes=("samples", "scaling_slots", "scaling_row_tokens", "scaling_steps"),
    )


def _lengths(setting: Setting, model: FrozenModel, tokenizer: PreTrainedTokenizerBase) -> Figure:
    sizes = setting.sizes
    slots = sizes.scaling_length_slots
    points = {
        tokens: equal_cases(
            tokenizer,
            _texts(setting),
            slots=slots,
            steps=max(1, sizes.scaling_length_tokens // (slots * tokens)),
            tokens=tokens,
        )
        for tokens in sizes.scaling_lengths
    }
    timings = _rounds(setting, model, points, "curve over lengths")
    curve = {
        tokens: [1e3 * timing.seconds / timing.tokens for timing in each]
        for tokens, each in timings.items()
    }
    best = min(curve, key=lambda tokens: median(curve[tokens]))
    longest = max(curve)
    return make_curves(
        setting,
        CURVES["lengths"],
        [_curve(f"{slots} slots", "tokens per row", "ms per real token", curve)],
        samples=[one / other for one, other in zip(curve[longest], curve[best], strict=True)],
        unit="x",
        reading=f"time per token in rows of {longest} tokens over that in rows of {best}, the "
        "fastest; median of the rounds' ratios",
        sizes=("samples", "scaling_lengths", "scaling_length_slots", "scaling_length_tokens"),
    )


def _texts(setting: Setting) -> list[str]:
    return [text for case in setting.cases.cases for _, text in case.examples]


def _rounds(
    setting: Setting, model: FrozenModel, points: Mapping[int, Sequence[EditCase]], what: str
) -> dict[int, tuple[Timing, ...]]:
    """Timings of every point, after a round that does not count."""
    for cases in points.values():
        time_steps(model, cases[:1])
    sides = {str(point): _point(model, cases) for point, cases in points.items()}
    timings = interleave(
        sides,
        rounds=setting.sizes.samples,
        report=lambda done, total: setting.report(what, done, total),
    )
    return {int(point): each for point, each in timings.items()}


def _point(model: FrozenModel, cases: Sequence[EditCase]) -> Callable[[int], Timing]:
    return lambda _: time_steps(model, cases)


def _curve(name: str, x: str, y: str, samples: Mapping[int, Sequence[float]]) -> Curve:
    return Curve(
        name=name,
        x=x,
        y=y,
        points=tuple((float(point), median(each)) for point, each in samples.items()),
    )
