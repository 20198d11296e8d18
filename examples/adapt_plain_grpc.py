"""Documents in, a verified adapter out, with grpcio and the generated stubs alone.

    seal serve                                        listens on localhost:50051
    python examples/adapt_plain_grpc.py notes.md

What a client needs besides the calls is shown here: a request id that makes a repeated submit safe,
a watch that goes on after the last event it has seen, and files that are compared with their
digests. Any language can do the same from proto/.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from seal.v1 import adaptation_pb2, adaptation_pb2_grpc, common_pb2

CALL_SECONDS = 60.0
"""Deadline of a call that answers at once."""
PAUSE_SECONDS = 1.0
"""Before a lost watch is begun again."""
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""The server is away for the moment: the same call again is right."""

Stub = adaptation_pb2_grpc.AdaptationServiceStub


def submit(stub: Stub, paths: list[Path]) -> str:
    """Hand in documents; the name of their adaptation. The same documents again find the same."""
    documents = [
        adaptation_pb2.Document(name=path.name, content=path.read_bytes()) for path in paths
    ]
    request = adaptation_pb2.SubmitAdaptationRequest(
        request_id=hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest(),
        documents=documents,
    )
    response = stub.SubmitAdaptation(request, timeout=CALL_SECONDS, wait_for_ready=True)
    adaptation = response.adaptation
    print(f"{adaptation.name}: {'accepted' if response.created else 'found again'}")
    return str(adaptation.name)


def watch(stub: Stub, name: str) -> Iterator[adaptation_pb2.AdaptationEvent]:
    """All events to the end, each once, whatever happens to the connection."""
    after = 0
    while True:
        request = adaptation_pb2.WatchAdaptationRequest(name=name, after_sequence=after)
        try:
            for message in stub.WatchAdaptation(request, wait_for_ready=True):
                after = max(after, message.event.sequence)
                yield message.event
                if message.event.HasField("ended"):
                    return
        except grpc.RpcError as error:
            if error.code() not in AWAY:
                raise
        time.sleep(PAUSE_SECONDS)


def line_of(event: adaptation_pb2.AdaptationEvent) -> str:
    """An event in a line."""
    kind = event.WhichOneof("event")
    if kind == "progress":
        return f"  {event.progress.stage} {event.progress.percent:.0f} %"
    words = str(getattr(event, str(kind))).replace("\n", " ").strip()
    return f"{event.sequence} {kind}: {words}" if len(words) < 200 else f"{event.sequence} {kind}"


def result(adaptation: adaptation_pb2.Adaptation) -> None:
    """What the adapter is worth, and what the gate said."""
    evaluation = adaptation.evaluation
    label = " (self-made questions)" if evaluation.self_made else ""
    print(f"{evaluation.questions} held-out questions{label}")
    for score in evaluation.scores:
        value = score.value  # of a single passage nothing is known of the spread
        ends = f"[{value.low:.3f}, {value.high:.3f}]" if value.HasField("low") else ""
        print(f"  {score.model:<9} {score.measure:<9} {value.mean:.3f} {ends}".rstrip())
    print(f"gate: {'passed' if adaptation.gate.passed else adaptation.gate.reason}")
    print(f"      {adaptation.gate.message}")


def download(stub: Stub, adapter: common_pb2.AdapterRef, directory: Path) -> None:
    """The adapter's files, each compared with its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    content: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    name = ""
    request = adaptation_pb2.DownloadAdapterRequest(adapter=adapter)
    for message in stub.DownloadAdapter(request, timeout=10 * CALL_SECONDS):
        if message.HasField("file"):
            name = Path(message.file.name).name
            content[name], digests[name] = b"", message.file.sha256
        else:
            content[name] += message.data
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != digests[name]:
            sys.exit(f"{name} did not come whole")
        (directory / name).write_bytes(data)
    print(f"adapter in {directory}: {', '.join(sorted(content))}")


def main(paths: list[str], *, server: str = "localhost:50051", directory: str = "adapter") -> None:
    """Submit, watch, show, download."""
    with grpc.insecure_channel(server) as channel:
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        name = submit(stub, [Path(path) for path in paths])
        shown = ""
        for event in watch(stub, name):
            if (line := line_of(event)) != shown:  # progress comes far more often than per cent
                print(line)
                shown = line
        request = adaptation_pb2.GetAdaptationRequest(name=name)
        adaptation = stub.GetAdaptation(request, timeout=CALL_SECONDS).adaptation
        if not adaptation.HasField("adapter"):
            sys.exit(f"no adapter: {[condition.message for condition in adaptation.conditions]}")
        result(adaptation)
        download(stub, adaptation.adapter, Path(directory))


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("usage: adapt_plain_grpc.py FILE...")
    main(sys.argv[1:])
