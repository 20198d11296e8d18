"""Training examples that a message could not carry: they lie in a file of the artifact store."""

from __future__ import annotations

import hashlib

from google.protobuf.message import DecodeError

from seal.artifacts import ArtifactStore
from seal.errors import NotFound
from seal.rpc import validation
from seal.v1 import trainer_pb2


def with_examples(
    request: trainer_pb2.TrainAdapterRequest, store: ArtifactStore
) -> trainer_pb2.TrainAdapterRequest:
    """The request with the rows of its file; it is then like one that carried them. Blocks.

    Raises InvalidInput naming the field for a file that is not there, is not the one of its digest
    or holds no rows, and for a request that has rows of its own too.
    """
    file, field = request.examples_file, "examples_file"
    if request.examples:
        raise validation.refuse(field, "is given beside examples", "give one of them")
    try:
        content = store.read_bytes(file.path)
    except NotFound as error:
        raise validation.refuse(field, "is not in the store", "write it first") from error
    if hashlib.sha256(content).hexdigest() != validation.sha256(file.sha256, field=field):
        raise validation.refuse(field, "has another content", "give the digest of what is there")
    try:
        rows = trainer_pb2.TrainingExamples.FromString(content)
    except DecodeError as error:
        raise validation.refuse(field, "holds no TrainingExamples", "serialise them") from error
    whole = trainer_pb2.TrainAdapterRequest()
    whole.CopyFrom(request)
    whole.ClearField("examples_file")
    whole.examples.extend(rows.examples)
    return whole
