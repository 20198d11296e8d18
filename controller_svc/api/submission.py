"""From a SubmitAdaptation request to what is submitted.

All that can be known without a model is refused before anything is accepted: every document is
read, whatever it comes from, and no text of it is in an error or a log.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from google.protobuf.json_format import MessageToJson

from controller_svc.adaptations import RequestKey, Submission
from controller_svc.api.files import Files
from controller_svc.api.requests import (
    check_documents,
    check_questions,
    parse_name,
    parse_namespace,
    parse_options,
)
from controller_svc.worker.demands import check_passage_tokens
from seal.documents import Document, GivenQuestion, check_together, read_document
from seal.documents.questions import check_questions as check_given
from seal.errors import InvalidInput, NotFound
from seal.manifest import MANIFEST_FILE
from seal.records import AdapterReference
from seal.rpc import validation
from seal.runs.store import in_thread
from seal.settings import FileReference, PassageSettings
from seal.v1 import adaptation_pb2

READERS = 1
"""Requests whose documents are read at once: a page of many tags takes half a gigabyte. Whose
caller gives up keeps its place until its thread has ended."""
CHECKED_CHARACTERS = 4 * 1024 * 1024
"""Text that is kept to look for the questions in it; in more of it `prepare` looks, which does
nothing else meanwhile."""
_PIECE_CHARACTERS = 200
"""What a section or a block takes beside its text."""
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
        self._readers = asyncio.Semaphore(READERS)

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
                place in the request; they are too long together.
            NotFound: a document or a policy that it refers to is not there.

        """
        if request.options.HasField("policy"):
            policy = request.options.policy
            await self._check_policy(AdapterReference(path=policy.path, sha256=policy.sha256))
        async with self._readers:
            references, brings_questions = await self._documents(request)
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

    async def _documents(
        self, request: adaptation_pb2.SubmitAdaptationRequest
    ) -> tuple[list[dict[str, str]], bool]:
        """All documents as manifests write them, and whether any brings questions."""
        references, kept = [], list[Document]()
        characters, held, brings_questions = 0, 0, False
        for place, document in enumerate(request.documents):
            reference, read = await self._document(document, f"documents[{place}]")
            references.append(reference)
            characters += read.characters
            check_together(characters)
            brings_questions = brings_questions or bool(read.questions)
            held += _memory_characters(read)
            kept.append(read)
            if held > CHECKED_CHARACTERS:
                kept.clear()
        if held <= CHECKED_CHARACTERS:
            await in_thread(check_answered, request, kept)
        return references, brings_questions

    async def _document(
        self, document: adaptation_pb2.Document, field: str
    ) -> tuple[dict[str, str], Document]:
        """A document as manifests write it, and as it was read."""
        is_stored = document.WhichOneof("source") == "file"
        if is_stored:
            file = document.file
            reference = validation.settings(
                FileReference, field=f"{field}.file", path=file.path, sha256=file.sha256
            )
            content = await self._files.read(
                reference.path, reference.sha256, field=f"{field}.file"
            )
        else:
            content = document.content
        read = await in_thread(
            read_document, document.name, document.media_type, content, field=field
        )
        if not is_stored:
            reference = await self._files.keep(content)
        written = {
            "name": document.name,
            "mediaType": document.media_type,
            "path": reference.path,
            "sha256": reference.sha256,
        }
        return written, read

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


def check_answered(
    request: adaptation_pb2.SubmitAdaptationRequest, documents: Sequence[Document]
) -> None:
    """Refuse questions that no document is about, as `prepare` would once it has cut them.

    Raises:
        InvalidInput: names the field: "questions", "questions[7].answers".

    """
    given = [
        GivenQuestion(one.question, tuple(one.answers), one.document, field=f"questions[{place}]")
        for place, one in enumerate(request.questions)
    ]
    check_given(
        [*given, *(own for one in documents for own in one.questions)],
        documents,
        passage_tokens=request.options.passage_tokens or PassageSettings().max_tokens,
    )


def _memory_characters(document: Document) -> int:
    """The memory that a document takes, in characters of text."""
    pieces = sum(1 + len(section.blocks) for section in document.sections)
    return document.characters + _PIECE_CHARACTERS * pieces


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
