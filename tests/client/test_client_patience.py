"""How long the client looks for a server that is away."""

from __future__ import annotations

from seal.client.calls import Attempts
from seal.errors import Transient

AWAY = Transient("the server is away")


class Clock:
    """Moves on by what is waited."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def looked_for(attempts: Attempts, clock: Clock) -> float:
    """Seconds until the attempts end."""
    began = clock.now
    try:
        while True:
            clock.now += attempts.pause_seconds(AWAY)
    except Transient:
        return clock.now - began


def test_a_call_that_never_got_on_is_given_up_soon() -> None:
    clock = Clock()
    assert 5 < looked_for(Attempts(15.0, on_retry=None, clock=clock), clock) <= 15


def test_a_call_that_failed_after_long_work_is_made_again_for_as_long() -> None:
    clock = Clock()
    attempts = Attempts(15.0, on_retry=None, clock=clock)
    clock.now += 600.0  # a large upload, whose answer is lost
    assert 5 < looked_for(attempts, clock) <= 15


def test_however_long_nothing_was_to_be_told_a_lost_watch_has_all_its_time() -> None:
    clock = Clock()
    attempts = Attempts(15.0, on_retry=None, clock=clock)
    attempts.allow(300.0)
    clock.now += 3600.0
    assert 290 < looked_for(attempts, clock) <= 300


def test_a_watch_that_gets_on_again_has_all_its_time_again() -> None:
    clock = Clock()
    attempts = Attempts(15.0, on_retry=None, clock=clock)
    for _ in range(3):
        attempts.allow(300.0)
        assert 290 < looked_for(attempts, clock) <= 300


def test_the_first_pause_is_as_long_as_its_name_says_and_the_next_twice_that() -> None:
    attempts = Attempts(600.0, on_retry=None, clock=Clock())
    for longest in (attempts.FIRST_PAUSE_SECONDS, 2 * attempts.FIRST_PAUSE_SECONDS):
        assert longest / 2 <= attempts.pause_seconds(AWAY) <= longest
