"""What the fault tests share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest
import structlog
from cluster_objects import CRDS
from control_plane import ControlPlane, running_control_plane, running_controllers
from fault_site import EVERYTHING


@pytest.fixture(autouse=True)
def thousands_of_cases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the disk nor threads are waited for, and the log has no reader."""

    def at_once(
        loop: asyncio.BaseEventLoop,
        executor: Executor | None,
        call: Callable[..., object],
        *args: object,
    ) -> asyncio.Future[object]:
        ended = loop.create_future()
        try:
            ended.set_result(call(*args))
        except Exception as error:
            ended.set_exception(error)
        return ended

    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", at_once)
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
