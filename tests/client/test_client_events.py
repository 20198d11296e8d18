"""What the client makes of an adaptation's events."""

from __future__ import annotations

import pytest

from controller_svc.cli.adaptation_progress import Story
from seal.client import events
from seal.client.convert import event
from seal.records import AdapterReference
from seal.v1 import adaptation_pb2 as pb
from seal.v1 import common_pb2

REFERENCE = AdapterReference(path="adapters/a", sha256="a" * 64)


@pytest.mark.parametrize("adapter", [REFERENCE, None])
def test_a_training_that_left_no_adapter_is_told_without_one(
    adapter: AdapterReference | None,
) -> None:
    trained = pb.AdaptationTrained(rows={"edit": 3})
    if adapter is not None:
        trained.adapter.CopyFrom(common_pb2.AdapterRef(path=adapter.path, sha256=adapter.sha256))
    told = event(pb.AdaptationEvent(sequence=4, trained=trained))
    assert told is not None and isinstance(told.what, events.Trained)
    assert told.what.adapter == adapter
    assert ("left no adapter" in Story("handbook").line(told)) is (adapter is None)
