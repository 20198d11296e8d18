"""From documents over gRPC to a published adapter and the service that is to serve it."""

from __future__ import annotations

from pathlib import Path

import pytest
from release import Release

from seal.client import (
    Adaptation,
    Client,
    ClientOptions,
    Document,
    Gate,
    Options,
    Prepared,
    Question,
    Rewarded,
    State,
    Trained,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

NAME = "lighthouse"
TEXT = (
    "The lighthouse of Veldra was built by Ama Torrin in 1907. It stands on the island of Brask "
    "and is 61 metres high. Its walls are made of green basalt. The keeper feeds the lamp with "
    "herring oil, and the light is seen as far as the port of Senn."
)
QUESTIONS = (
    ("Who built the lighthouse of Veldra?", "Ama Torrin"),
    ("In which year was the lighthouse of Veldra built?", "1907"),
    ("On which island does the lighthouse of Veldra stand?", "Brask"),
    ("What are the walls of the lighthouse of Veldra made of?", "green basalt"),
)
ANY_GAIN = Gate(min_gain=-1.0, confident=False, max_regression=1.0)
"""Lets pass whatever was learnt: this is about the way, and one passage proves no gain."""
ENDS_WITHIN_SECONDS = 3600.0


@pytest.fixture(scope="module")
def adapted(release: Release, front_door: str) -> tuple[Adaptation, set[type]]:
    """An adaptation that has ended, and what was told of it on the way."""
    told: set[type] = set()
    with Client(front_door, options=ClientOptions(namespace=release.namespace)) as client:
        client.submit(
            [Document(name="lighthouse.txt", content=TEXT.encode())],
            questions=[
                Question(question=question, answers=(answer,)) for question, answer in QUESTIONS
            ],
            name=NAME,
            request_id=NAME,
            options=Options(gate=ANY_GAIN, replay_rows=2),
        )
        ended = client.wait(
            NAME,
            on_event=lambda event: told.add(type(event.what)),
            timeout_seconds=ENDS_WITHIN_SECONDS,
        )
    return ended, told


def test_documents_become_a_published_adapter(adapted: tuple[Adaptation, set[type]]) -> None:
    ended, told = adapted
    assert ended.state is State.PUBLISHED, ended
    assert told >= {Prepared, Rewarded, Trained}
    assert ended.evaluation is not None
    assert ended.evaluation.questions == len(QUESTIONS) // 2
    assert ended.evaluation.difference("adapter", "base", "f1") is not None


def test_the_adapter_comes_through_the_front_door(
    adapted: tuple[Adaptation, set[type]], release: Release, front_door: str, tmp_path: Path
) -> None:
    ended, _ = adapted
    assert ended.adapter is not None
    with Client(front_door, options=ClientOptions(namespace=release.namespace)) as client:
        directory = client.download(ended.adapter, tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        file.name for file in directory.iterdir()
    }


def test_a_service_that_the_api_server_took_names_the_adapter(
    adapted: tuple[Adaptation, set[type]], release: Release, front_door: str, served_by: str
) -> None:
    if not served_by:
        pytest.skip("this cluster knows no InferenceService, and SEAL_TEST_CRDS names no folder")
    ended, _ = adapted
    assert ended.adapter is not None
    release.kubectl(
        "wait", f"adaptation/{NAME}", "--for=condition=Published=Unknown", "--timeout=60s"
    )
    with Client(front_door, options=ClientOptions(namespace=release.namespace)) as client:
        serving = client.get(NAME).serving
    assert serving is not None
    assert (serving.service, serving.reason) == (served_by, "RollingOut")
    assert serving.adapter_uri.endswith(ended.adapter.path)
    assert ended.adapter.path in str(release.get("inferenceservice", served_by)["spec"])
