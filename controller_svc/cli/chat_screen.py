"""Two answers on a terminal: side by side where there is room, else one under the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller_svc.cli.chat_answers import SPEAKERS, Answer, Speaker
from seal.outcomes import Outcome
from seal.telemetry import harmless

SIDE_BY_SIDE_COLUMNS = 80
"""From this width on the answers stand beside each other."""
_REFRESHES_PER_SECOND = 12
_STYLES: Mapping[Speaker, str] = {"base": "bold cyan", "adapted": "bold green"}


class ChatScreen:
    """Shows answers while they are written, and leaves them when they are whole."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def answering(self) -> Iterator[Screen]:
        """Show what is written until the end of the block, and leave it as it is then."""
        screen = Screen(self._console)
        if not self._console.is_terminal:
            yield screen
        else:
            with Live(
                console=self._console,
                get_renderable=screen.render,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,  # what is longer than the terminal is cut, so the whole comes after
            ):
                yield screen
        self._console.print(screen.render())


class Screen:
    """The answers as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._answers: Mapping[Speaker, Answer] = {speaker: Answer() for speaker in SPEAKERS}

    def show(self, answers: Mapping[Speaker, Answer]) -> None:
        """From now on show these."""
        self._answers = answers

    def render(self) -> RenderableType:
        """All that is written."""
        if self._console.width >= SIDE_BY_SIDE_COLUMNS:
            return self._beside()
        return Group(
            *(
                Text.assemble((f"{speaker}: ", _STYLES[speaker]), written(answer))
                for speaker, answer in self._answers.items()
            )
        )

    def _beside(self) -> Table:
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
        for speaker in self._answers:
            table.add_column(speaker, header_style=_STYLES[speaker], ratio=1, overflow="fold")
        table.add_row(*(written(answer) for answer in self._answers.values()))
        return table


def written(answer: Answer) -> Text:
    """An answer, and what must be said about it."""
    if answer.outcome not in (None, Outcome.OK):
        return Text(f"no answer: {answer.outcome}", style="red")
    text = Text(harmless(answer.text.strip()))
    if answer.outcome is None:
        text.append(" …", style="dim")
    elif answer.truncated:
        text.append(" … (cut: --max-tokens gives it more room)", style="dim")
    return text
