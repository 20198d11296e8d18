"""The engine that the services' own tests stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_engine import FakeEngine


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """One that computes nothing."""
    engine = FakeEngine()
    yield engine
    engine.close()
