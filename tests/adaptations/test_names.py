"""Names of adaptations in the store."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seal.adaptations.names import run_of
from seal.names import MAX_NAME_CHARACTERS
from seal.records import Stage
from seal.rpc.validation import run_name

NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?\Z")
NAMESPACES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@given(NAMESPACES, NAMES)
def test_an_adaptation_is_called_by_a_valid_run_name_with_room_for_its_stages(
    namespace: str, name: str
) -> None:
    run = run_of(namespace, name, "1")
    assert run_name(run) == run == run_of(namespace, name, "1")
    assert all(len(f"{run}-r0-{stage}-a99") <= MAX_NAME_CHARACTERS for stage in Stage)


def test_equal_names_of_other_times_and_namespaces_and_long_ones_are_kept_apart() -> None:
    long = "a-long-name-of-a-document-for-quarter-"
    keys = [run_of("default", "notes", uid) for uid in ("1", "2")]
    keys += [run_of("other", "notes", "1")]
    keys += [run_of("default", f"{long}{quarter}", "1") for quarter in range(4)]
    assert len(set(keys)) == len(keys)
    assert keys[0].startswith("adapt-notes-")
