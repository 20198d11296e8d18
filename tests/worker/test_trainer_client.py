"""The client of a trainer: what it leaves alone."""

from __future__ import annotations

from controller_svc.worker.calls import Calls
from controller_svc.worker.settings import DEFAULT_SETTINGS
from controller_svc.worker.trainer_client import TrainerClient


async def test_a_trainer_whose_name_is_not_known_any_more_is_not_waited_for() -> None:
    client = TrainerClient(Calls(DEFAULT_SETTINGS), "dns:///no-such-host.invalid:1")
    client._unfinished["demo"] = {"demo/edit-0"}
    await client.cancel_trainings("demo")
    assert not client._unfinished
    await client.close()
