"""The client of a trainer: what it waits for, and what it leaves alone."""

from __future__ import annotations

import tempfile
from typing import Any

import grpc.aio

from controller_svc.worker.calls import Calls
from controller_svc.worker.settings import DEFAULT_SETTINGS
from controller_svc.worker.trainer_client import TrainerClient
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc


class SlowTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Its step lasts longer than it waits for it, twice."""

    asked = 0

    async def CancelTraining(
        self, request: trainer_pb2.CancelTrainingRequest, context: Any
    ) -> trainer_pb2.CancelTrainingResponse:
        self.asked += 1
        ended = self.asked == 3
        return trainer_pb2.CancelTrainingResponse(
            state=common_pb2.TASK_STATE_DONE if ended else common_pb2.TASK_STATE_RUNNING
        )


async def test_a_trainer_whose_name_is_not_known_any_more_is_not_waited_for() -> None:
    client = TrainerClient(Calls(DEFAULT_SETTINGS), "dns:///no-such-host.invalid:1")
    client._unfinished["demo"] = {"demo/edit-0"}
    await client.cancel_trainings("demo")
    assert not client._unfinished
    await client.close()


async def test_a_training_is_cancelled_once_its_step_has_ended_however_long_that_lasts() -> None:
    trainer, server = SlowTrainer(), grpc.aio.server()
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(trainer, server)
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        address = f"unix:{directory}/trainer.sock"
        server.add_insecure_port(address)
        await server.start()
        client = TrainerClient(Calls(DEFAULT_SETTINGS), address)
        client._unfinished["demo"] = {"demo/edit-0"}
        await client.cancel_trainings("demo")
        await client.close()
        await server.stop(None)
    assert trainer.asked == 3
