"""Client of AdaptationService: documents in, a verified adapter out.

    from seal.client import Client

    with Client("localhost:50051") as client:
        submission = client.submit(["handbook.md"], name="handbook")
        adaptation = client.wait(submission.adaptation.name)
        if adaptation.gate and adaptation.gate.passed:
            client.download(adaptation.adapter, "handbook-adapter")

`AsyncClient` is the same for asyncio. Neither loads a model: they need gRPC and nothing else.
"""

from seal.client.aio import AsyncClient
from seal.client.blocking import Client
from seal.client.calls import SERVER_VARIABLE, ClientOptions
from seal.client.evaluations import Difference, Evaluation, Interval, Score, Verdict
from seal.client.events import (
    Accepted,
    Advanced,
    Ended,
    Event,
    Judged,
    Prepared,
    Questioned,
    Rewarded,
    Trained,
)
from seal.client.files import read_documents
from seal.client.types import (
    Adaptation,
    BaseModel,
    Condition,
    Counts,
    Document,
    Gate,
    Options,
    Progress,
    Question,
    Serving,
    StageCost,
    State,
    StoredFile,
    Submission,
)
from seal.rpc.settings import DEFAULT_ADDRESS

__all__ = [
    "DEFAULT_ADDRESS",
    "SERVER_VARIABLE",
    "Accepted",
    "Adaptation",
    "Advanced",
    "AsyncClient",
    "BaseModel",
    "Client",
    "ClientOptions",
    "Condition",
    "Counts",
    "Difference",
    "Document",
    "Ended",
    "Evaluation",
    "Event",
    "Gate",
    "Interval",
    "Judged",
    "Options",
    "Prepared",
    "Progress",
    "Question",
    "Questioned",
    "Rewarded",
    "Score",
    "Serving",
    "StageCost",
    "State",
    "StoredFile",
    "Submission",
    "Trained",
    "Verdict",
    "read_documents",
]
