"""The beginning of docs/learning.md: what the reward adds, and what the rest does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from benchmarks.learning.figures import CONTRASTS, CorpusFigures, Measured, verdict_of
from benchmarks.learning.plan import CorpusName
from seal.records import Interval
from seal.report.numbers.formats import plain, plural

CORPUS_WORDS: dict[CorpusName, str] = {
    "validation": "the embedded corpus",
    "natural": "natural text",
}
SHORT = MappingProxyType(
    {
        "round0": "round 0",
        "last": "last round",
        "passage": "passage alone",
        "round1": "round 1",
        "control1": "control's round 1",
        "control": "control",
        "abstain": "last round that learns to abstain",
        "preselect": "last round with preselection",
        "warm": "warm start (supervised)",
        "warm-last": "rounds on the warm start (supervised)",
        "passage-equal-steps": "passage alone, steps of round 0's edits",
        "gold": "gold pairs",
    }
)
"""Rows that differences are taken of, in a word or two."""
CONTROL_AFTER = "control-control1"
REWARD = "last-control"
GAINS = (
    *("last-round0", "last-round1", "last-passage", "round0-passage"),
    *("warm-round0", "warm-last-round0", "warm-last-passage"),
)


def reward_words(figures: CorpusFigures) -> str:
    """What the reward adds over the control that draws as many parts without it."""
    where, found = CORPUS_WORDS[figures.corpus], figures.contrast(REWARD, "f1")
    if found is None:
        return (
            f"On {where}, rounds have not been measured beside a control without reward: nothing "
            "can be said of what the reward adds there."
        )
    size = f"{difference(found.over_passages)} token F1 ({basis(found)})"
    if found.verdict == "above":
        return (
            f"On {where}, the reward adds to what the M-step learns anyway: the last round is "
            f"above the control without reward by {size}, an interval clear of 0."
            f"{_seeds_too(found)}{_first_round(figures)}"
        )
    if found.verdict == "below":
        return f"On {where}, the last round is below the control without reward by {size}."
    if found.verdict == "unknown":
        return (
            f"On {where}, too few passages were measured to say what the reward adds: the last "
            f"round minus the control without reward is {size}."
        )
    return (
        f"On {where}, nothing that the reward adds is shown: the last round minus the control "
        f"without reward is {size}, an interval that holds 0.{_control_alone(figures)}"
    )


def _seeds_too(found: Measured) -> str:
    """A warning where the policies of other run seeds might not show it."""
    wide = found.over_seeds
    if wide is None or verdict_of(wide) != "unclear":
        return ""
    return (
        f" With the run seeds resampled as well it is {with_ends(wide, signed=True)} and holds 0: "
        "other runs need not show it."
    )


def _first_round(figures: CorpusFigures) -> str:
    """The round that both arms learn from one rollout, and what comes of the control later."""
    first, control = (figures.contrast(key, "f1") for key in ("round1-control1", CONTROL_AFTER))
    if first is None or control is None or figures.has_one_round:
        return ""
    told_apart = "" if first.verdict == "above" else ", not told apart"
    falls = {
        "below": " Part of it is that the control falls back after its first round: ",
        "above": " The control gains after its first round too: ",
    }.get(control.verdict, " The control after its first round: ")
    return (
        " After round 1, for which both learn from the same rollout, it is "
        f"{difference(first.over_passages)}{told_apart}.{falls}{difference(control.over_passages)}."
        f"{_seeds_too(control) if control.verdict != 'unclear' else ''}"
    )


def _control_alone(figures: CorpusFigures) -> str:
    """What random parts gain, which is no merit of the reward."""
    found = figures.contrast("control-round0", "f1")
    if found is None or found.verdict != "above":
        return ""
    return (
        " The control, an M-step on random usable parts of the policy's own, gains over round 0 as "
        f"well: {difference(found.over_passages)}."
    )


def gains_table(figures: Sequence[CorpusFigures]) -> str:
    """The other differences that matter most, corpora side by side; empty if there are none."""
    usual = {one.corpus: _usual(one) for one in figures}
    rows = [
        line(f"{SHORT[contrast.above]} over {SHORT[contrast.below]}", *cells)
        for contrast in CONTRASTS
        if contrast.key in GAINS
        and any(cells := [_cell(one, contrast.key, usual[one.corpus]) for one in figures])
    ]
    if not rows:
        return ""
    head = [f"{CORPUS_WORDS[one.corpus]}, {usual[one.corpus]}" for one in figures]
    return table(["token F1", *head], rows)


def table(head: Sequence[str], lines: Iterable[str]) -> str:
    """A Markdown table."""
    return "\n".join([line(*head), "|---" * len(head) + "|", *lines])


def line(*cells: object) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _usual(figures: CorpusFigures) -> str:
    """The passages and run seeds that most of these differences have."""
    found = [one for key in GAINS if (one := figures.contrast(key, "f1")) is not None]
    return Counter(map(basis, found)).most_common(1)[0][0] if found else "not measured"


def _cell(figures: CorpusFigures, key: str, usual: str) -> str:
    found = figures.contrast(key, "f1")
    if found is None:
        return ""
    other = "" if basis(found) == usual else f" ({basis(found)})"
    return f"{difference(found.over_passages)}, {_clear(found)}{other}"


def _clear(found: Measured) -> str:
    """Whether 0 is in the interval over passages, and whether in the wider ones."""
    if found.verdict == "unclear":
        return "not told apart"
    words = {"above": "clear of 0", "below": "below 0"}.get(found.verdict, "too few passages")
    wider = {"run seeds": found.over_seeds, "titles": found.over_titles}
    lost = [what for what, wide in wider.items() if wide and verdict_of(wide) == "unclear"]
    return f"{words}, but not over {' or '.join(lost)}" if lost else words


def difference(interval: Interval) -> str:
    """+0.050 [+0.020, +0.081]."""
    return with_ends(interval, signed=True)


def with_ends(interval: Interval, *, signed: bool = False) -> str:
    """0.450 [0.420, 0.481]; the mean alone where there is no interval."""
    mean = plain(interval.mean, signed=signed)
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{plain(interval.low, signed=signed)}, {plain(interval.high, signed=signed)}]"


def basis(found: Measured) -> str:
    """60 passages, 3 run seeds."""
    return f"{plural(found.over_passages.n, 'passage')}, {plural(found.seeds, 'run seed')}"
