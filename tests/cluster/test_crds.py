"""The definitions are current, and a real API server takes them and keeps what they say."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from chart import of_kind, render
from cluster_objects import CRDS, Object, adaptation, full_status, object_path, run
from control_plane import ControlPlane

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.crds import KINDS, definition_text
from controller_svc.k8s.objects import (
    MAX_ROUNDS,
    MAX_STATUS_BYTES,
    ObjectColumns,
    ObjectProgress,
    of_object,
    to_object,
)
from seal.config import adaptation_of_object, load_run, run_of_object
from seal.settings import MAX_SEED

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
Change = Callable[[Object], object]
numbers = itertools.count()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_definition_in_the_chart_is_current(kind) -> None:
    committed = (CRDS / kind.file_name).read_text(encoding="utf-8")
    assert committed == definition_text(kind), "run `make schema`"


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_the_chart_installs_the_definitions_and_keeps_them_if_asked(
    program: str, control_plane: ControlPlane
) -> None:
    made = definitions(program)
    kept = control_plane.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-o", "json"),
        *("-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(made.values())}),
    )
    found = json.loads(kept)["items"]
    assert {one["metadata"]["name"] for one in found} == {
        f"{kind.plural}.seal.dev" for kind in KINDS
    }
    policies = {one["metadata"]["annotations"]["helm.sh/resource-policy"] for one in found}
    assert policies == {"keep"}
    unkept = definitions(program, "--set=crds.keep=false").values()
    assert not any("annotations" in one["metadata"] for one in unkept)
    assert not definitions(program, "--set=crds.enabled=false")


def definitions(program: str, *arguments: str) -> dict[str, Object]:
    """The definitions that the chart makes, by name."""
    return of_kind(render(*arguments, program=program), "CustomResourceDefinition")


def create(plane: ControlPlane, made: Object) -> tuple[int, dict]:
    return plane.request("POST", f"{object_path(made, '')}?fieldValidation=Strict", made)


def replace(plane: ControlPlane, made: Object, below: str = "") -> tuple[int, dict]:
    path = object_path(made, made["metadata"]["name"])
    return plane.request("PUT", f"{path}{below}?fieldValidation=Strict", made)


def test_kubectl_knows_the_kinds_by_short_name_and_category(seal_api: ControlPlane) -> None:
    create(seal_api, run("by-short-name"))
    create(seal_api, adaptation("by-category"))
    assert "restemrun.seal.dev/by-short-name" in seal_api.kubectl("get", "rer", "-o", "name")
    assert "adaptation.seal.dev/by-category" in seal_api.kubectl("get", "seal", "-o", "name")
    explained = seal_api.kubectl("explain", "rer.spec.rounds")
    assert "0 only measures the base policy" in explained


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_sample_is_accepted_and_comes_back_as_the_run_that_a_laptop_makes(
    path: Path, seal_api: ControlPlane
) -> None:
    seal_api.kubectl("apply", "--validate=strict", "-f", str(path))
    name = yaml.safe_load(path.read_text())["metadata"]["name"]
    kept = json.loads(seal_api.kubectl("get", "restemrun", name, "-o", "json"))
    manifest, _ = run_of_object(kept)
    assert manifest.spec == load_run(path).spec


def test_a_spec_with_every_field_set_is_accepted_and_comes_back(seal_api: ControlPlane) -> None:
    whole = load_run(None, {"seed": MAX_SEED}).spec
    code, kept = create(seal_api, run("whole", **whole.model_dump(mode="json", by_alias=True)))
    assert code == 201, kept
    assert run_of_object(kept)[0].spec == whole
    given = adaptation("whole", seed=MAX_SEED)
    spec = adaptation_of_object(given)[0].spec
    code, kept = create(
        seal_api, adaptation("whole", **spec.model_dump(mode="json", by_alias=True))
    )
    assert code == 201, kept
    assert adaptation_of_object(kept)[0].spec == spec


def test_what_only_a_cluster_has_comes_back_beside_the_spec(seal_api: ControlPlane) -> None:
    sample = yaml.safe_load((REPOSITORY / "examples/on-a-cluster.yaml").read_text())
    sample["metadata"]["name"] = "cluster-fields"
    code, kept = create(seal_api, sample)
    assert code == 201, kept
    _, cluster = run_of_object(kept)
    assert cluster.ttl_seconds_after_finished == 604800
    assert cluster.job_template.resources.requests == {"cpu": "1", "memory": "2Gi"}
    assert cluster.job_template.tolerations[0].operator == "Exists"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["spec"].update(rounds=-1), "spec.rounds"),
        (lambda it: it["spec"].update(rounds="two"), "spec.rounds"),
        (lambda it: it["spec"].update(round=1), "spec.round"),
        (lambda it: it["spec"].update(edit={"max_tokens": 3}), "spec.edit.max_tokens"),
        (lambda it: it["spec"].update(edit={"family": "poems"}), "spec.edit.family"),
        (lambda it: it["spec"].update(queueName="No Queue"), "spec.queueName"),
        (lambda it: it["spec"].update(ttlSecondsAfterFinished=-1), "ttlSecondsAfterFinished"),
        (
            lambda it: it["spec"].update(jobTemplate={"serviceAccountName": "admin"}),
            "spec.jobTemplate.serviceAccountName",
        ),
        (
            lambda it: it["spec"].update(jobTemplate={"resources": {"limits": {"cpu": "many"}}}),
            "spec.jobTemplate.resources.limits",
        ),
        (lambda it: it["metadata"].update(name="n" * 41), "metadata.name"),
        (lambda it: it["metadata"].update(name="a.b"), "metadata.name"),
    ],
)
def test_what_a_laptop_refuses_the_api_server_refuses_by_field(
    change: Change, said: str, seal_api: ControlPlane
) -> None:
    refused = run("refused")
    change(refused)
    code, reply = create(seal_api, refused)
    assert code in (400, 422), reply
    assert said in reply["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda spec: spec.update(rounds=2), "spec.rounds"),
        (lambda spec: spec.pop("rounds"), "spec.rounds"),
        (lambda spec: spec.update(seed=1), "spec.seed"),
        (lambda spec: spec["edit"].update(k=3), "spec.edit"),
        (lambda spec: spec.update(jobTemplate={"priorityClassName": "high"}), "spec.jobTemplate"),
    ],
)
def test_what_results_rest_on_cannot_be_changed(
    change: Change, field: str, seal_api: ControlPlane
) -> None:
    code, kept = create(seal_api, run(f"fixed-{next(numbers)}", rounds=1, edit={"k": 2}))
    assert code == 201, kept
    change(kept["spec"])
    code, reply = replace(seal_api, kept)
    assert code == 422
    assert f"{field} cannot be changed" in reply["message"]


def test_suspend_queue_and_time_to_live_can_be_changed(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, run("mutable"))
    kept["spec"] |= {"suspend": True, "queueName": "gpus", "ttlSecondsAfterFinished": 60}
    code, kept = replace(seal_api, kept)
    assert (code, kept["metadata"]["generation"]) == (200, 2)
    del kept["spec"]["queueName"], kept["spec"]["suspend"]
    assert replace(seal_api, kept)[0] == 200


def test_a_cancellation_cannot_be_taken_back(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, adaptation("cancelled"))
    kept["spec"]["cancelled"] = True
    code, kept = replace(seal_api, kept)
    assert code == 200, kept["message"]
    _, cluster = adaptation_of_object(kept)
    assert cluster.cancelled
    kept["spec"]["cancelled"] = False
    code, reply = replace(seal_api, kept)
    assert code == 422 and "cannot be taken back" in reply["message"]


def test_an_adaptation_needs_documents_and_a_run_needs_nothing(seal_api: ControlPlane) -> None:
    assert create(seal_api, run("from-its-profile") | {"spec": {}})[0] == 201
    wrong = adaptation("without")
    del wrong["spec"]["data"]["documents"]
    code, reply = create(seal_api, wrong)
    assert code == 422 and "spec.data.documents" in reply["message"]


@pytest.mark.parametrize("rounds", [2, 1000])
def test_a_whole_status_goes_there_and_back_in_64_kib(rounds: int, seal_api: ControlPlane) -> None:
    status = full_status(rounds)
    _, kept = create(seal_api, run(f"status-{rounds}"))
    kept["status"] = to_object(status, generation=1)
    assert len(json.dumps(kept["status"]).encode()) <= MAX_STATUS_BYTES
    code, kept = replace(seal_api, kept, "/status")
    assert code == 200, kept["message"]
    back = of_object(kept["status"])
    assert back is not None
    assert back.rounds[-MAX_ROUNDS:] == status.rounds[-MAX_ROUNDS:]
    assert back.policies[0] == status.policies[0]
    whole = {"rounds": status.rounds, "policies": status.policies}
    assert back.model_copy(update=whole) == status
    # What it was made from again, it is the same: nothing is written where nothing has changed
    assert to_object(back, generation=1) == kept["status"]


def test_an_adaptations_status_goes_there_and_back(seal_api: ControlPlane) -> None:
    status = full_status(0, adaptation=True)
    _, kept = create(seal_api, adaptation("status"))
    kept["status"] = to_object(status, generation=1)
    code, kept = replace(seal_api, kept, "/status")
    assert code == 200, kept["message"]
    assert of_object(kept["status"]) == status


def test_a_status_without_a_score_or_a_stage_is_accepted(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, run("nothing-yet"))
    pending = RunStatus(run="nothing-yet", spec_sha256="0")
    kept["status"] = to_object(pending, generation=1)
    code, kept = replace(seal_api, kept, "/status")
    assert code == 200, kept["message"]
    assert of_object(kept["status"]) == pending
    kept["status"]["stage"] = "sleep"
    assert replace(seal_api, kept, "/status")[0] == 422


def test_an_object_without_a_status_has_none() -> None:
    assert of_object({}) is None


def test_a_terminal_phase_is_final(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, run("final"))
    ended = RunStatus(run="final", spec_sha256="0", phase=Phase.FAILED)
    kept["status"] = to_object(ended, generation=1)
    code, kept = replace(seal_api, kept, "/status")
    assert code == 200, kept["message"]
    again = copy.deepcopy(kept)
    again["status"]["phase"] = "Running"
    code, reply = replace(seal_api, again, "/status")
    assert code == 422 and "the phase is final" in reply["message"]
    kept["status"]["observedGeneration"] = 2
    assert replace(seal_api, kept, "/status")[0] == 200


def test_who_wrote_which_field_of_a_status_is_not_kept(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, run("one-writer"))
    kept["status"] = to_object(full_status(1), generation=1)
    _, kept = replace(seal_api, kept, "/status")
    (written,) = (
        entry for entry in kept["metadata"]["managedFields"] if entry.get("subresource") == "status"
    )
    assert written["fieldsV1"] == {"f:status": {}}


def test_a_spec_is_not_changed_by_who_writes_the_status(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, run("two-doors"))
    kept["spec"]["suspend"] = True
    kept["status"] = to_object(RunStatus(run="two-doors", spec_sha256="0"), generation=1)
    code, kept = replace(seal_api, kept, "/status")
    assert code == 200, kept["message"]
    assert "suspend" not in kept["spec"]
    assert kept["status"]["phase"] == "Pending"


def test_kubectl_shows_where_a_run_is(seal_api: ControlPlane) -> None:
    _, kept = create(seal_api, run("shown", queueName="gpus"))
    kept["status"] = to_object(
        full_status(2),
        generation=1,
        progress=ObjectProgress(percent=40, eta_seconds=90),
        columns=ObjectColumns(round="1/2", reward="0.42"),
    )
    assert replace(seal_api, kept, "/status")[0] == 200
    header, row = seal_api.kubectl("get", "restemruns", "shown").splitlines()
    assert header.split() == ["NAME", "PHASE", "ROUND", "REWARD", "PROGRESS", "AGE"]
    assert row.split()[:5] == ["shown", "Running", "1/2", "0.42", "40"]
    wide = seal_api.kubectl("get", "restemruns", "shown", "-o", "wide").splitlines()
    assert wide[0].split()[5:] == ["ETA", "REASON", "QUEUE", "AGE"]
    assert wide[1].split()[5:8] == ["90", "RolloutRunning", "gpus"]
    waited = seal_api.kubectl("wait", "--for=condition=Progressing", "rer/shown", "--timeout=5s")
    assert "condition met" in waited


def test_kubectl_shows_where_an_adaptation_is_and_no_stage_of_one_that_has_ended(
    seal_api: ControlPlane,
) -> None:
    _, kept = create(seal_api, adaptation("ended"))
    status = RunStatus(run="ended", spec_sha256="0")
    for columns, expected in (
        (ObjectColumns(stage="rollout"), ["rollout", "0"]),
        (ObjectColumns(gain="+0.500"), ["+0.500", "0"]),
    ):
        kept["status"] = to_object(status, generation=1, columns=columns)
        code, kept = replace(seal_api, kept, "/status")
        assert code == 200
        header, row = seal_api.kubectl("get", "adaptations", "ended").splitlines()
        assert header.split() == ["NAME", "PHASE", "STAGE", "GAIN", "PROGRESS", "AGE"]
        assert row.split()[2:4] == expected


def test_runs_are_selected_by_what_they_do(seal_api: ControlPlane) -> None:
    create(seal_api, run("selected", queueName="only-this", suspend=True))
    create(seal_api, run("not-selected", queueName="another"))
    chosen = "spec.queueName=only-this,spec.suspend=true"
    found = seal_api.kubectl("get", "rer", "--field-selector", chosen, "-o", "name")
    assert found.split() == ["restemrun.seal.dev/selected"]
