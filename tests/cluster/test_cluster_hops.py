"""Whoever asked for an object is told to the pods that work on it."""

from __future__ import annotations

from cluster_objects import adaptation

from controller_svc.k8s.hops import ANNOTATIONS, hop_annotations, hop_of_object
from seal.rpc.hops import TRACEPARENT_KEY, Hop

TRACED = Hop("mine-1", f"00-{'ab' * 16}-{'cd' * 8}-01", "a=1")


def test_an_object_says_which_call_asked_for_it() -> None:
    for hop in (TRACED, Hop("mine-2")):
        body = adaptation("one")
        body["metadata"]["annotations"] = {"other": "x"} | hop_annotations(hop)
        assert hop_of_object(body) == hop


def test_an_object_that_nobody_called_for_says_nothing_and_a_malformed_trace_is_left_out() -> None:
    body = adaptation("one")
    assert hop_of_object(body) is None
    body["metadata"]["annotations"] = {ANNOTATIONS[TRACEPARENT_KEY]: "ff-x"}
    found = hop_of_object(body)
    assert found is not None and not found.traceparent
