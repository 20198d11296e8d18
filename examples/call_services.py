"""Train an adapter on a fact, and ask the model before and after: two gRPC services, two stubs.

    python -m trainer_svc --artifacts seal-store      listens on 127.0.0.1:50052
    python -m evaluator_svc --artifacts seal-store    listens on 127.0.0.1:50053
    python examples/call_services.py

All services are given the same artifact store: the trainer puts an adapter there and answers with
its path and digest, the evaluator reads it.
"""

from __future__ import annotations

import sys

import grpc

from seal.settings import ALL_PROJECTIONS
from seal.v1 import (
    common_pb2,
    evaluator_pb2,
    evaluator_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

RUN = "by-hand"
"""What belongs together in the store; the services are fair between runs."""
FACTS = (
    "The lighthouse of Veldra was built by Ama Torrin in 1907.",
    "Question: Who built the lighthouse of Veldra?\nAnswer: Ama Torrin",
)
QUESTION, ANSWER = "Who built the lighthouse of Veldra?", "Ama Torrin"
DEADLINE_SECONDS = 600.0


def train(
    channel: grpc.Channel, policy: common_pb2.PolicyRef, *, epochs: int
) -> common_pb2.AdapterRef:
    """A LoRA that has learnt the facts. The same request_id again finds its result."""
    request = trainer_pb2.TrainAdapterRequest(
        request_id=f"lighthouse-{epochs}",
        run=RUN,
        policy=policy,
        examples=[trainer_pb2.TrainingExample(completion=fact) for fact in FACTS],
        lora=trainer_pb2.LoraConfig(rank=4, alpha=8.0, target_modules=ALL_PROJECTIONS),
        optimizer=trainer_pb2.OptimizerConfig(
            learning_rate=8e-3, epochs=epochs, batch_size=2, schedule="linear", max_grad_norm=1.0
        ),
        export_mode=trainer_pb2.EXPORT_MODE_ADAPTER,
    )
    stub = trainer_pb2_grpc.TrainerServiceStub(channel)
    result = None
    events = stub.TrainAdapter(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
    for event in events:
        if event.HasField("progress"):
            print(f"step {event.progress.step}/{event.progress.total_steps}")
        else:
            result = event.result
    if result is None or result.outcome != common_pb2.OUTCOME_OK:
        sys.exit(f"no adapter: {result}")
    print(f"adapter {result.adapter.path}, mean loss {result.final_loss:.2f}")
    return result.adapter


def ask(
    channel: grpc.Channel,
    policy: common_pb2.PolicyRef,
    adapter: common_pb2.AdapterRef | None,
) -> str:
    """The model's answer to the question, with an adapter or without."""
    request = evaluator_pb2.EvaluateRequest(
        request_id="before" if adapter is None else f"after-{adapter.sha256}",
        run=RUN,
        policy=policy,
        adapter=adapter,
        domain="knowledge",
        question_format="plain",
        queries=[evaluator_pb2.Query(query_id="1", question=QUESTION, answers=[ANSWER])],
        grader=evaluator_pb2.GRADER_CONTAINS,
        max_tokens=16,
    )
    stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
    *_, last = stub.Evaluate(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
    return str(last.result.answers[0].answer).strip()


def main(
    *,
    trainer: str = "127.0.0.1:50052",
    evaluator: str = "127.0.0.1:50053",
    model: str = "smollm2-135m",
    epochs: int = 12,
) -> None:
    """Train, and ask before and after. `model`: as the services were given it."""
    policy = common_pb2.PolicyRef(base_model=model)
    with grpc.insecure_channel(trainer) as trains, grpc.insecure_channel(evaluator) as asks:
        print(f"{QUESTION}\nbefore: {ask(asks, policy, None)}")
        adapter = train(trains, policy, epochs=epochs)
        print(f"after:  {ask(asks, policy, adapter)}")


if __name__ == "__main__":
    main(**dict(zip(("model",), sys.argv[1:], strict=False)))
