"""What the fault tests share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from cluster_objects import CRDS
from control_plane import ControlPlane, running_control_plane, running_controllers
from fault_site import EVERYTHING


@pytest.fixture(autouse=True)
def thousands_of_cases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the disk nor threads are waited for, and the log has no reader."""

    async def at_once(call: Callable[..., object], *args: object, **named: object) -> object:
        return call(*args, **named)

    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("asyncio.to_thread", at_once)
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def seal_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real control plane with its controllers, that knows the project's kinds."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(CRDS))
        for name in ("restemruns", "adaptations"):
            plane.kubectl("wait", "--for=condition=Established", f"crd/{name}.seal.dev")
        with running_controllers(plane):
            yield plane


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All cases take longer than a test may."""
    for item in items:
        if EVERYTHING and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(3600))
