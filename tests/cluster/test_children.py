"""The Jobs of an object: which are its own, and that none is read twice for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from memory_api import MemoryApi

from controller_svc.k8s import children
from controller_svc.k8s.api import Resource
from controller_svc.k8s.children import Children, ReadJobs
from controller_svc.k8s.jobs import Owner
from controller_svc.k8s.looking import JobSeen
from seal.errors import NotFound

OWNER = Owner(kind="RestEMRun", name="demo", namespace="team", uid="u-1")


def job(name: str, *, version: int, owner: str = "u-1", active: int = 0) -> Any:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {"seal.dev/run": "demo"},
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "status": {"active": active},
    }


class Jobs(MemoryApi):
    """A server that has these Jobs."""

    def __init__(self, *bodies: Any) -> None:
        super().__init__()
        self.bodies = list(bodies)

    async def list(self, *_: Any, **__: Any) -> list[Any]:
        return self.bodies


async def test_a_job_is_read_again_once_it_has_changed_and_not_before() -> None:
    api, read = Jobs(job("a", version=1), job("b", version=2)), ReadJobs()
    first = await Children(api, OWNER, jobs=read).jobs()
    api.bodies[1] = job("b", version=3, active=1)
    second = await Children(api, OWNER, jobs=read).jobs()
    assert second["a"] is first["a"]
    assert (first["b"].status.active, second["b"].status.active) == (0, 1)


async def test_a_job_of_an_earlier_object_of_the_name_is_not_its_own() -> None:
    api = Jobs(job("a", version=1), job("old", version=2, owner="u-0"))
    assert set(await Children(api, OWNER).jobs()) == {"a"}


class Kueue(MemoryApi):
    """A server with a Kueue that serves one version of its kinds."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version

    async def list(self, kind: Resource, *_: Any, **__: Any) -> list[Any]:
        if kind.api_version != self.version:
            raise NotFound("the server could not find the requested resource")
        why = {"type": "QuotaReserved", "status": "False", "message": "no quota for gpu"}
        return [{"status": {"conditions": [why]}}]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("kueue.x-k8s.io/v1beta2", "no quota for gpu"),
        ("kueue.x-k8s.io/v1beta1", "no quota for gpu"),
        ("none", "Kueue has not looked at it yet"),
    ],
)
async def test_workloads_are_read_of_whatever_version_kueue_serves(
    version: str, words: str
) -> None:
    body = job("a", version=1) | {"spec": {"suspend": True}}
    body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    seen = await Children(Kueue(version), OWNER).look(JobSeen.model_validate(body))
    assert seen.message == f"queue gpus: {words}"


async def test_jobs_beyond_those_that_are_kept_are_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "MAX_READ_JOBS", 1)
    api, read = Jobs(job("a", version=1), job("b", version=1)), ReadJobs()
    first = await Children(api, OWNER, jobs=read).jobs()
    second = await Children(api, OWNER, jobs=read).jobs()
    assert first == second and second["a"] is not first["a"]
