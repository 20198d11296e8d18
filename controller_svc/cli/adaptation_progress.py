"""What an adaptation shows while it works, on stderr: its events as lines that stay, and bars.

On a terminal its progress is bars, elsewhere a line now and then, like a run's.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller_svc.cli.adaptation_tables import label
from controller_svc.cli.progress import LINE_INTERVAL_SECONDS, Bars, Lines, shows_bars, time_left
from seal.client import (
    Accepted,
    Adaptation,
    Advanced,
    Ended,
    Event,
    Judged,
    Prepared,
    Progress,
    Questioned,
    Rewarded,
    Trained,
)
from seal.report.numbers.formats import MISSING, counts, percent, plural
from seal.restem.student import LEAST_FOR_A_VERDICT

STAGE_NAMES = {
    "prepare": "reading the documents",
    "question": "writing questions",
    "rollout": "trying edits",
    "adapt": "training and testing the adapter",
}


class Story:
    """Events of one adaptation as lines for people."""

    def __init__(self, name: str, *, self_made: bool = False) -> None:
        self._name, self._self_made = name, self_made
        self._waiting = ""

    def line(self, event: Event) -> str:
        """What happened; empty for mere progress, unless it has come to a halt or goes on."""
        told = self._told(event)
        return f"{self._name}: {told}" if told else ""

    def _told(self, event: Event) -> str:
        match event.what:
            case Accepted(documents=documents):
                return f"accepted, {plural(documents, 'document')}"
            case Prepared() as what:
                return self._prepared(what)
            case Questioned() as what:
                self._self_made = True
                return (
                    f"wrote {plural(what.written, 'question')} of its own, kept {what.kept}, "
                    f"{what.held_out} of them held out{label(self_made=True)}"
                )
            case Rewarded() as what:
                return self._rewarded(what)
            case Trained() as what:
                if what.adapter is None:
                    return f"the training on {counts(what.rows)} rows left no adapter"
                return f"adapter trained on {counts(what.rows)} rows and tested"
            case Judged(verdict=verdict):
                said = "passed" if verdict.passed else f"refused, {verdict.reason}"
                return f"gate {said}: {verdict.message}{label(self._self_made)}"
            case Ended(state=state, message=message):
                return f"{state.lower()}{f': {message}' if message else ''}"
            case Advanced(progress=progress):
                return self._halted(progress.waiting)

    def _halted(self, waiting: str) -> str:
        before, self._waiting = self._waiting, waiting
        if waiting == before:
            return ""
        return f"waits: {waiting}" if waiting else "goes on"

    def _prepared(self, what: Prepared) -> str:
        made = what.counts
        self._self_made = self._self_made or made.self_made
        too_long = f", {made.passages_too_long} too long" if made.passages_too_long else ""
        few = (
            f", below {LEAST_FOR_A_VERDICT} of which the gate is sure of no gain (--not-confident "
            "judges by the mean)"
            if made.passages < LEAST_FOR_A_VERDICT
            else ""
        )
        asked = (
            f"; {plural(made.reward_questions, 'question')} to choose edits by, "
            f"{made.held_out_questions} held out{label(made.self_made)}"
            if made.reward_questions or made.held_out_questions
            else ""
        )
        return (
            f"{plural(made.documents, 'document')} in {plural(made.passages, 'passage')}{too_long}"
            f"{few}{asked}"
        )

    def _rewarded(self, what: Rewarded) -> str:
        tried = sum(what.edits.values())
        if not tried:
            return "no edit was tried: there is no question to choose one by"
        worth = (
            f"reward {percent(what.baseline)} before, {percent(what.reward)} of all edits, "
            f"{percent(what.best)} of each passage's best{label(self._self_made)}"
        )
        return f"{plural(tried, 'edit')} tried ({counts(what.edits) or MISSING}); {worth}"


class EventLines(Lines):
    """A line for each event, in between at most every half minute if it got on."""

    def __init__(self, *, json_lines: bool = False) -> None:
        super().__init__(json_lines=json_lines)
        self._story = Story("")

    def ready(self) -> None:
        """The model is loaded: nothing to say."""

    def begin(self, adaptation: Adaptation) -> None:
        """What is shown from here on."""
        self._story = Story(adaptation.name, self_made=adaptation.counts.self_made)

    def on_event(self, event: Event) -> None:
        """Say what happened."""
        if line := self._story.line(event):
            self.say(line)
        elif isinstance(event.what, Advanced):
            self._on_advance(event.what.progress)

    def _on_advance(self, progress: Progress) -> None:
        if self._clock() - self._said < LINE_INTERVAL_SECONDS or not progress.stage:
            return
        amounts = [f"{name} {done}/{total}" for name, done, total in _amounts(progress)]
        stage = STAGE_NAMES.get(progress.stage, progress.stage)
        reached = f"{stage}: {', '.join([f'{progress.percent:.0f} %', *amounts])}"
        if reached != self._told:
            self._told = reached
            self.say(f"{reached}{time_left(progress.eta_seconds, before='; ')}")


class EventBars(Bars):
    """Events as lines above a bar for the whole and one per kind of work."""

    def __init__(self) -> None:
        super().__init__()
        self._story, self._stage = Story(""), ""

    def ready(self) -> None:
        """The model is loaded."""
        self.remove("model")

    def begin(self, adaptation: Adaptation) -> None:
        """What is shown from here on."""
        self.ready()
        self._story = Story(adaptation.name, self_made=adaptation.counts.self_made)

    def on_event(self, event: Event) -> None:
        """Say what happened, move the bars."""
        if line := self._story.line(event):
            self.say(line)
        elif isinstance(event.what, Advanced):
            self._on_advance(event.what.progress)

    def _on_advance(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            for name in ("edits", "steps", "answers"):
                self.remove(name)
            self._stage = progress.stage
        stage = STAGE_NAMES.get(progress.stage, progress.stage) or "waiting"
        share = progress.percent / 100
        self.draw("run", stage, share, f"{share:.0%}", time_left(progress.eta_seconds))
        for name, done, total in _amounts(progress):
            self.draw(name, f"  {name}", done / total, f"{done}/{total}", "")


def open_event_screen(*, bars: bool, json_lines: bool) -> EventBars | EventLines:
    """Bars if they are wanted and stderr is a terminal, else lines; or lines of JSON."""
    if not json_lines and shows_bars(bars):
        return EventBars()
    return EventLines(json_lines=json_lines)


def _amounts(progress: Progress) -> Iterator[tuple[str, int, int]]:
    """Kinds of work of the stage that are known, done and wanted."""
    for name, done, total in (
        ("edits", progress.edits_done, progress.edits_total),
        ("steps", progress.steps_done, progress.steps_total),
        ("answers", progress.answers_done, progress.answers_total),
    ):
        if total:
            yield name, done, total
