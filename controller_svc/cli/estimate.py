"""The time that is left, of a stage and of the run, as a person wants to see it: falling.

What a stage takes is told by an earlier stage of its kind where there is one, else by the pace of
all work so far, and more and more by its own pace the further it is. What is shown follows that
estimate: it falls with the clock, and where the estimate is higher it rises no faster than the
clock runs, so that a bar never jumps back.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seal.records import Stage

Place = tuple[int, Stage]
"""Round and stage."""

LEAST_SHARE, LEAST_SECONDS = 0.05, 10.0
"""Share of a stage's own work, and time spent on it, from which on its pace says something: what
comes first is slow, and seconds of a busy machine multiplied by fifty are hours."""
FALL_SECONDS = 10.0
"""Within about so long what is shown comes down to a lower estimate."""
MAX_RISE = 0.5
"""Seconds that what is shown may rise a second."""


@dataclass
class _Past:
    """A stage that has ended in this process."""

    seconds: float
    share: float
    """Share of its work that was done in this process, the rest was found finished."""


class Falling:
    """A number of seconds that falls with the clock and follows an estimate without jumps."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shown: float | None = None
        self._at = 0.0

    def follow(self, estimate: float | None) -> float | None:
        """What to show now; None until there is an estimate."""
        now = self._clock()
        if estimate is None or self._shown is None:
            self._shown = estimate if self._shown is None else self._shown
            if estimate is None and self._shown is not None:
                self._shown = max(0.0, self._shown - (now - self._at))
            self._at = now
            return self._shown
        passed = now - self._at
        shown = max(0.0, self._shown - passed)
        if estimate >= shown:
            shown += min(estimate - shown, (1.0 + MAX_RISE) * passed)
        else:
            shown -= (shown - estimate) * min(1.0, passed / FALL_SECONDS)
        self._shown, self._at = shown, now
        return shown


class RunEstimate:
    """Seconds that the current stage and the run will still take."""

    def __init__(self, costs: Mapping[Place, float], *, clock: Callable[[], float]) -> None:
        """`costs`: expected cost of every stage, in order, in any unit."""
        self._costs, self._clock = costs, clock
        self._past: dict[Place, _Past] = {}
        self._now: Place | None = None
        self._began = self._first = self._share = 0.0
        self._run, self._stage = Falling(clock), Falling(clock)

    def enter(self, place: Place | None) -> None:
        """A stage begins, and the one before has ended."""
        if self._now is not None and self._share > self._first:
            seconds = self._clock() - self._began
            self._past[self._now] = _Past(seconds, 1.0 - self._first)
        self._now, self._began = place, self._clock()
        self._first = self._share = 0.0
        self._stage = Falling(self._clock)

    def moved(self, share: float, *, found: float = 0.0) -> None:
        """The current stage is at `share` of its work, `found` of it was there when it began."""
        self._first = max(self._first, min(found, share))
        self._share = max(self._share, min(1.0, share))

    @property
    def share(self) -> float:
        """Share of the run's expected cost that is done, in [0, 1]."""
        if self._now is None:
            return 0.0
        before = 0.0
        for place, cost in self._costs.items():
            if place == self._now:
                before += cost * self._share
                break
            before += cost
        return before / sum(self._costs.values())

    def stage_seconds(self) -> float | None:
        """Seconds to show for the current stage; None until they can be told."""
        return self._stage.follow(self._stage_left())

    def run_seconds(self) -> float | None:
        """Seconds to show for the run; None until they can be told."""
        return self._run.follow(self._run_left())

    def _stage_left(self) -> float | None:
        if self._now is None:
            return None
        expected, done = self._expected(self._now), self._share - self._first
        elapsed = self._clock() - self._began
        if not self._tells():
            return None if expected is None else expected * (1.0 - self._share)
        own = elapsed * (1.0 - self._share) / done
        if expected is None:
            return own
        trust = min(1.0, 2.0 * self._share)
        return trust * own + (1.0 - trust) * expected * (1.0 - self._share)

    def _run_left(self) -> float | None:
        stage = self._stage_left()
        if stage is None or self._now is None:
            return None
        places = list(self._costs)
        after = places[places.index(self._now) + 1 :] if self._now in self._costs else []
        left = [self._expected(place) for place in after]
        if any(seconds is None for seconds in left):
            return None
        return stage + sum(seconds for seconds in left if seconds is not None)

    def _tells(self) -> bool:
        """Whether enough of the current stage was seen to go by its own pace."""
        elapsed = self._clock() - self._began
        return self._share - self._first >= LEAST_SHARE and elapsed >= LEAST_SECONDS

    def _expected(self, place: Place) -> float | None:
        """Seconds that a whole stage takes, by finished ones of its kind or the pace of all."""
        same = [
            past.seconds / past.share / self._costs[other] * self._costs[place]
            for other, past in self._past.items()
            if other[1] is place[1] and other[0] > 0 and past.share > LEAST_SHARE
        ]
        if same:
            return statistics.median(same)
        pace = self._pace()
        return None if pace is None else pace * self._costs[place]

    def _pace(self) -> float | None:
        """Seconds per unit of cost, over all work of this process."""
        seconds = sum(past.seconds for past in self._past.values())
        cost = sum(past.share * self._costs[place] for place, past in self._past.items())
        if self._now is not None and self._tells():
            seconds += self._clock() - self._began
            cost += (self._share - self._first) * self._costs[self._now]
        # A stage of other work than most of the run is no measure of it
        return seconds / cost if cost > LEAST_SHARE * sum(self._costs.values()) else None
