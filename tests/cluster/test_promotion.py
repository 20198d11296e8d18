"""What a service is to serve: decided from an adapter and the service that is there alone."""

from __future__ import annotations

import itertools

import plain_kserve
import pytest
from publishing import adapter_of, kserve_settings

from controller_svc.k8s.publishing.overlay import changed
from controller_svc.k8s.publishing.promotion import (
    MAX_NAMES,
    Revision,
    check_revision,
    names_of,
    promoted,
    service_of,
    withdrawn,
)
from seal.errors import Conflict, InvalidInput, PreconditionFailed
from seal.settings.publish import KServeSettings


def revision(digit: str, *, ended: float = 0.0, rank: int = 8, **kserve: object) -> Revision:
    return Revision(
        settings=KServeSettings.model_validate(kserve_settings(**kserve)),
        adaptation=f"adaptation-{digit}",
        uid=f"uid-{digit}",
        ended_seconds=ended,
        adapter=adapter_of(digit),
        rank=rank,
    )


def named(digit: str, *, ended: float = 0.0, **kserve: object) -> Revision:
    """One under the name that all share."""
    return revision(digit, ended=ended, **{"adapterName": "docs"} | kserve)


def service(names, **kserve):
    settings = KServeSettings.model_validate(kserve_settings(**kserve))
    return service_of(names, settings=settings, namespace="team")


def current(names, name="docs"):
    return names[name].current and names[name].current.adaptation


def test_a_service_keeps_all_that_the_next_look_needs() -> None:
    names = promoted(promoted({}, named("1")), named("2", ended=1.0))
    assert names_of(plain_kserve.build(service(names))) == names


@pytest.mark.parametrize("order", list(itertools.permutations("123")))
def test_the_adaptation_that_ended_last_is_served_whoever_is_seen_first(order) -> None:
    names = {}
    for digit in order:
        names = promoted(names, named(digit, ended=float(digit)))
    assert current(names) == "adaptation-3"


def test_one_that_looks_again_changes_nothing() -> None:
    once = promoted(promoted({}, named("1")), named("2", ended=1.0))
    assert promoted(once, named("2", ended=1.0)) == once
    assert promoted(once, named("1")) == once
    assert once["docs"].previous.adaptation == "adaptation-1"


def test_what_was_served_before_comes_back_when_an_adapter_is_withdrawn() -> None:
    names = promoted(promoted({}, named("1")), named("3", ended=3.0))
    names = withdrawn(names, named("3", ended=3.0))
    assert current(names) == "adaptation-1"
    # Of the settings, too, which were the adapter's
    assert withdrawn(names, named("3", ended=3.0)) == names


def test_an_adaptation_that_was_passed_over_does_not_come_back_with_a_withdrawal() -> None:
    names = promoted(promoted({}, named("1")), named("3", ended=3.0))
    names = withdrawn(names, named("3", ended=3.0))
    assert current(promoted(names, named("2", ended=2.0))) == "adaptation-1"
    assert current(promoted(names, named("3", ended=3.0))) == "adaptation-3"
    assert current(promoted(names, named("4", ended=4.0))) == "adaptation-4"


def test_a_first_adapter_that_is_withdrawn_leaves_the_base_model() -> None:
    names = withdrawn(promoted({}, named("1")), named("1"))
    assert current(names) is None
    assert service(names).adapters == ()
    assert not any("lora" in argument for argument in service(names).arguments)
    assert current(promoted(names, named("1"))) == "adaptation-1"


def test_only_its_own_adapter_is_withdrawn() -> None:
    names = promoted({}, named("1"))
    assert withdrawn(names, named("2", ended=9.0)) == names
    assert withdrawn({}, named("2")) == {}


def test_adapters_of_several_names_are_served_side_by_side_each_by_its_digest_too() -> None:
    names = promoted(promoted({}, revision("1", rank=4)), revision("2", rank=20))
    made = service(names)
    assert [adapter.name for adapter in made.adapters] == [
        "adaptation-1", "adaptation-1-111111111111",
        "adaptation-2", "adaptation-2-222222222222",
    ]  # fmt: skip
    assert made.adapters[1].uri == f"pvc://artifacts/runs/1/adapters/{'1' * 64}"
    assert (made.max_rank, made.loaded_at_once) == (32, 2)


def test_the_settings_of_the_newest_adapter_hold_and_go_with_it() -> None:
    names = promoted({}, named("1", args=["--seed=1"]))
    names = promoted(names, named("2", ended=1.0, args=["--seed=2"]))
    assert service(names).arguments[0] == "--seed=2"
    assert service(withdrawn(names, named("2", ended=1.0))).arguments[0] == "--seed=1"


def test_a_service_is_prepared_for_a_rank_that_vllm_knows() -> None:
    assert service(promoted({}, revision("1", rank=65, maxLoraRank=33))).max_rank == 128
    assert service(promoted({}, revision("1", rank=1, maxLoraRank=33))).max_rank == 64


def test_what_no_service_can_serve_is_refused() -> None:
    with pytest.raises(InvalidInput, match="rank 513"):
        check_revision(revision("1", rank=513))
    with pytest.raises(InvalidInput, match="base model is served as"):
        check_revision(revision("1", name="adaptation-1"))


def test_adapters_of_another_base_model_are_refused() -> None:
    names = promoted({}, revision("1"))
    with pytest.raises(PreconditionFailed, match="serves 'adaptation-1' on hf://org/qwen"):
        promoted(names, revision("2", modelUri="hf://org/llama"))
    # Alone under its name an adapter may bring its base model, and take it away again
    moved = promoted(promoted({}, named("1")), named("2", ended=1.0, modelUri="hf://org/llama"))
    assert service(moved).settings.model_uri == "hf://org/llama"
    back = withdrawn(moved, named("2", ended=1.0))
    assert service(back).settings.model_uri == "hf://org/qwen"


def test_a_service_has_room_for_so_many_names() -> None:
    names = {}
    for number in range(MAX_NAMES):
        names = promoted(names, revision("1", adapterName=f"n{number}"))
    with pytest.raises(PreconditionFailed, match=f"serves {MAX_NAMES} adapters"):
        promoted(names, revision("2"))
    assert len(plain_kserve.build(service(names))["metadata"]["annotations"]["seal.dev/served"]) < (
        128 * 1024
    )


def test_a_service_of_somebody_else_is_left_alone() -> None:
    theirs = plain_kserve.build(service({}))
    theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    with pytest.raises(Conflict, match="not SEAL's"):
        names_of(theirs)
    theirs["metadata"] = {"name": "qwen"}
    with pytest.raises(Conflict):
        names_of(theirs)


def test_an_annotation_that_was_altered_is_refused_with_what_to_do() -> None:
    altered = plain_kserve.build(service({}))
    altered["metadata"]["annotations"] = {"seal.dev/served": "{}x"}
    with pytest.raises(InvalidInput, match="delete the service"):
        names_of(altered)


@pytest.mark.parametrize(
    ("model", "store", "mounts", "modules"),
    [
        (
            "hf://org/qwen", "s3://bucket/seal",
            {
                "/mnt/models": "hf://org/qwen",
                "/mnt/models/adapters/111111111111": f"s3://bucket/seal/{adapter_of('1').path}",
            },
            "/mnt/models/adapters/111111111111",
        ),
        (
            "hf://org/qwen", "pvc://artifacts/seal",
            {"/mnt/models": "hf://org/qwen", "/mnt/stores/artifacts": "pvc://artifacts"},
            f"/mnt/stores/artifacts/seal/{adapter_of('1').path}",
        ),
        (
            "pvc://models/qwen/7b", "s3://bucket",
            {
                "/mnt/models": "pvc://models",
                "/mnt/adapters/111111111111": f"s3://bucket/{adapter_of('1').path}",
            },
            "/mnt/adapters/111111111111",
        ),
        (
            "pvc://models/qwen/7b", "pvc://artifacts",
            {"/mnt/models": "pvc://models", "/mnt/stores/artifacts": "pvc://artifacts"},
            f"/mnt/stores/artifacts/{adapter_of('1').path}",
        ),
    ],
)  # fmt: skip
def test_a_server_is_told_where_a_model_and_adapters_lie_once_kserve_has_mounted_them(
    model: str, store: str, mounts: dict[str, str], modules: str
) -> None:
    made = service(promoted({}, named("1", modelUri=model, storeUri=store)))
    assert made.mounts == mounts
    assert f"docs={modules}" in made.arguments
    assert f"docs-111111111111={modules}" in made.arguments
    at_root = model.startswith("hf")
    assert f"--model_dir=/mnt/models{'' if at_root else '/qwen/7b'}" in made.arguments


def test_a_runtime_of_ones_own_is_not_told_what_only_kserves_server_knows() -> None:
    made = service(promoted({}, named("1", runtime="vllm", args=["--seed=1"])))
    assert made.arguments[:2] == ("--seed=1", "--enable-lora")


WANTED = {"a": {"b": 1, "args": [1, 2]}, "containers": [{"name": "main", "x": 1}]}


def test_an_object_that_holds_what_is_wanted_is_not_written() -> None:
    found = {
        "a": {"b": 1, "args": [1, 2], "defaulted": True},
        "containers": [{"name": "other"}, {"name": "main", "x": 1, "env": []}],
        "status": {},
    }
    assert changed(found, WANTED, owned=[("a", "gone")]) is None


def test_what_others_set_stays_and_what_is_not_wanted_any_more_goes() -> None:
    found = {
        "a": {"b": 2, "args": [1], "mine": 1, "theirs": 1},
        "containers": [{"name": "other"}, {"name": "main", "x": 2, "args": [1], "env": [1]}],
    }
    owned = [("a", "mine"), ("containers", "main", "args"), ("nowhere", "x")]
    assert changed(found, WANTED, owned=owned) == {
        "a": {"b": 1, "args": [1, 2], "theirs": 1},
        "containers": [{"name": "other"}, {"name": "main", "x": 1, "env": [1]}],
    }


def test_what_was_withdrawn_while_another_was_served_does_not_come_back_after_that() -> None:
    names = promoted(promoted({}, named("1")), named("2", ended=1.0))
    names = withdrawn(names, named("1"))
    assert current(names) == "adaptation-2"
    assert current(withdrawn(names, named("2", ended=1.0))) is None


def test_an_adapter_does_not_come_back_to_a_service_of_another_base_model() -> None:
    names = promoted(promoted({}, named("1")), named("2", ended=1.0, modelUri="hf://org/llama"))
    names = promoted(names, revision("3", ended=2.0, modelUri="hf://org/llama"))
    names = withdrawn(names, named("2", ended=1.0))
    assert current(names) is None
    assert current(names, "adaptation-3") == "adaptation-3"
