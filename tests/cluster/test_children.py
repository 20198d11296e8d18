"""The Jobs of an object: which are its own, and that none is read twice for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from memory_api import MemoryApi

from controller_svc.k8s import children
from controller_svc.k8s.children import Children, ReadJobs
from controller_svc.k8s.jobs import Owner

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


async def test_jobs_beyond_those_that_are_kept_are_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "MAX_READ_JOBS", 1)
    api, read = Jobs(job("a", version=1), job("b", version=1)), ReadJobs()
    first = await Children(api, OWNER, jobs=read).jobs()
    second = await Children(api, OWNER, jobs=read).jobs()
    assert first == second and second["a"] is not first["a"]
