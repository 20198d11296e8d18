"""From a SubmitAdaptation request to what is submitted.

All that can be known without a model is refused before anything is accepted: every document is
read, whatever it comes from, and no text of it is in an error or a log.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from google.protobuf.json_format import MessageToJson

from controller_svc.adaptations import RequestKey, Submission
from controller_svc.api.files import Files
from controller_svc.api.places import Places
from controller_svc.api.reader import Reader, ReaderThread, reader_process
from controller_svc.api.reading import Unread
from controller_svc.api.requests import (
    check_documents,
    check_questions,
    parse_name,
    parse_namespace,
    parse_options,
)
from controller_svc.worker.demands import check_passage_tokens
from seal.documents import GivenQuestion, media_type_of
from seal.documents.read import HTML, PDF
from seal.errors import InvalidInput, NotFound
from seal.manifest import MANIFEST_FILE
from seal.records import AdapterReference
from seal.rpc import validation
from seal.runs.store import in_thread
from seal.settings import FileReference, PassageSettings
from seal.v1 import adaptation_pb2

LIGHT_BYTES = 64 * 1024
"""A request no larger than this, all of it plain text or rows, is read at once by this process."""
WAITING = 16
"""Other requests that may wait while one is read: each may hold 4 MiB."""
_OPTION_OF = {
    "spec.seed": "options.seed",
    "spec.policy": "options.policy",
    "spec.edit.k": "options.candidates",
    "spec.inner.racing": "options.candidates",
    "spec.inner.preselect": "options.candidates",
    "spec.passages.maxTokens": "options.passage_tokens",
    "spec.adapter.lora": "options.lora",
    "spec.adapter.optimizer": "options.optimizer",
    "spec.adapter.replayRows": "options.replay_rows",
    "spec.questions.heldOutShare": "options.held_out_share",
    "spec.gate.minGain": "options.gate.min_gain",
    "spec.gate.maxRegression": "options.gate.max_regression",
}
"""Fields of a spec as callers know them."""


class Submissions:
    """Reads what is submitted; belongs to one event loop."""

    def __init__(self, files: Files, max_positions: int = 0) -> None:
        """`max_positions`: of the base model; 0 if they are not known here."""
        self._files, self._max_positions = files, max_positions
        self._places = Places(1, waiting=WAITING, what="submissions of large documents")

    async def key_of(
        self, request: adaptation_pb2.SubmitAdaptationRequest, *, caller: str
    ) -> tuple[RequestKey, str]:
        """Whose request it is, and the digest of all that it asks for.

        It is checked by all that is known without reading a document.
        """
        request_id = validation.request_id(request.request_id)
        key = RequestKey(
            caller=caller, namespace=parse_namespace(request.namespace), request_id=request_id
        )
        parse_name(request.name)
        check_documents(request.documents)
        check_questions(request.questions, documents=[one.name for one in request.documents])
        parse_options(request.options)
        try:
            check_passage_tokens(request.options.passage_tokens, self._max_positions)
        except InvalidInput as error:
            raise as_options(error) from None
        return key, await asyncio.to_thread(body_digest, request)

    async def read(
        self, request: adaptation_pb2.SubmitAdaptationRequest, key: RequestKey, body_sha256: str
    ) -> Submission:
        """What is submitted, its documents read and stored.

        Raises:
            InvalidInput: a document cannot be read, or a question is about none of them, by its
                place in the request; they are too long together, or take too much to read.
            NotFound: a document or a policy that it refers to is not there.
            Exhausted: too many wait for their documents to be read.

        """
        if request.options.HasField("policy"):
            policy = request.options.policy
            await self._check_policy(AdapterReference(path=policy.path, sha256=policy.sha256))
        async with self._reader(request) as reader:
            references, brings_questions = await self._documents(request, reader)
        questions = await self._questions(request.questions)
        given = brings_questions or questions is not None
        return Submission(
            key=key,
            body_sha256=body_sha256,
            name=parse_name(request.name),
            changes={
                **parse_options(request.options),
                "data.documents": references,
                "data.questions": questions and questions.model_dump(mode="json"),
                "questions.source": "given" if given else "self-made",
            },
        )

    @asynccontextmanager
    async def _reader(
        self, request: adaptation_pb2.SubmitAdaptationRequest
    ) -> AsyncIterator[Reader]:
        """Who reads the documents of a request, once it is its turn.

        Raises:
            Exhausted: too many wait for theirs.

        """
        if _is_light(request):
            yield ReaderThread()
            return
        async with self._places.place(), reader_process() as reader:
            yield reader

    async def _documents(
        self, request: adaptation_pb2.SubmitAdaptationRequest, reader: Reader
    ) -> tuple[list[dict[str, str]], bool]:
        """All documents as manifests write them, and whether any brings questions."""
        references, brings_questions = [], False
        for place, document in enumerate(request.documents):
            field = f"documents[{place}]"
            reference, content = await self._content(document, f"{field}.file")
            unread = Unread(document.name, document.media_type, content, field)
            brings_questions |= await reader.add(unread)
            kept = reference or await self._files.keep(content)
            references.append(
                {
                    "name": document.name,
                    "mediaType": document.media_type,
                    "path": kept.path,
                    "sha256": kept.sha256,
                }
            )
        tokens = request.options.passage_tokens or PassageSettings().max_tokens
        await reader.check(_given(request.questions), passage_tokens=tokens)
        return references, brings_questions

    async def _content(
        self, document: adaptation_pb2.Document, field: str
    ) -> tuple[FileReference | None, bytes]:
        """The bytes of a document, and where they are stored already."""
        if document.WhichOneof("source") != "file":
            return None, document.content
        path, sha256 = document.file.path, document.file.sha256
        reference = validation.settings(FileReference, field=field, path=path, sha256=sha256)
        return reference, await self._files.read(path, sha256, field=field)

    async def _questions(
        self, questions: Sequence[adaptation_pb2.Question]
    ) -> FileReference | None:
        """The questions as a file of the store: one `seal.v1.Question` as JSON on each line."""
        if not questions:
            return None
        rows = [MessageToJson(question, indent=None, ensure_ascii=False) for question in questions]
        return await self._files.keep("".join(f"{row}\n" for row in rows).encode())

    async def _check_policy(self, policy: AdapterReference) -> None:
        """Refuse a policy that is not there; whether it fits the model is seen with the model."""
        try:
            self._files.store.uri(policy.path)  # refuses what is no path, as it was given
            content = await in_thread(
                self._files.store.read_bytes, f"{policy.path}/{MANIFEST_FILE}"
            )
        except NotFound as error:
            raise NotFound(
                "options.policy: no adapter is published there",
                field="options.policy",
                remedy="give the adapter of a run's policy as its report or GetTraining names it",
            ) from error
        except InvalidInput as error:
            raise InvalidInput(
                error.message, field="options.policy.path", remedy=error.remedy
            ) from error
        if hashlib.sha256(content).hexdigest() != policy.sha256:
            raise validation.refuse(
                "options.policy.sha256",
                "is not that of the adapter there",
                "give the reference unaltered",
            )


def _is_light(request: adaptation_pb2.SubmitAdaptationRequest) -> bool:
    """Whether nothing in a request can take long to read.

    Raises:
        InvalidInput: a document does not say what it is.

    """
    media_types = {
        media_type_of(one.name, one.media_type, field=f"documents[{place}]")
        for place, one in enumerate(request.documents)
    }
    return (
        request.ByteSize() <= LIGHT_BYTES
        and media_types.isdisjoint((HTML, PDF))
        and all(one.WhichOneof("source") == "content" for one in request.documents)
    )


def _given(questions: Iterable[adaptation_pb2.Question]) -> list[GivenQuestion]:
    return [
        GivenQuestion(one.question, tuple(one.answers), one.document, field=f"questions[{place}]")
        for place, one in enumerate(questions)
    ]


def as_options(error: InvalidInput) -> InvalidInput:
    """A refusal of the spec that a request comes to, by the request's own field."""
    matches = [field for field in _OPTION_OF if error.field.startswith(field)]
    if not matches:
        return error
    field = _OPTION_OF[max(matches, key=len)]
    return InvalidInput(error.message, field=field, remedy=error.remedy)


def body_digest(request: adaptation_pb2.SubmitAdaptationRequest) -> str:
    """sha256 of all that a request asks for.

    A document counts by its content's digest, whether it comes in the request or was uploaded.
    """
    body = adaptation_pb2.SubmitAdaptationRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    body.namespace = parse_namespace(request.namespace)
    for document in body.documents:
        if document.WhichOneof("source") == "content":
            sha256 = hashlib.sha256(document.content).hexdigest()
        else:
            sha256 = document.file.sha256
        document.file.Clear()
        document.file.sha256 = sha256
    return hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()
