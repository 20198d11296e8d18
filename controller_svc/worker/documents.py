"""The first stage of an adaptation: documents become passages with questions, pinned to the model.

What can be known before the first costly step is refused here, by field and remedy, and never with
a word of a document. A passage that the model cannot take is counted, and its work will have
outcome `too_long`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import structlog

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.demands import describe_model
from controller_svc.worker.others import check_generator, describe_judge, describe_writer
from controller_svc.worker.prepare import Contexts, check_steps, find_long_rows
from seal.adaptations.retained import part_retained
from seal.artifacts import ArtifactStore
from seal.datasets import load_contexts
from seal.documents import (
    Document,
    GivenQuestion,
    Passage,
    check_together,
    pack,
    pieces,
    read_document,
)
from seal.documents.questions import (
    check_named,
    part_questions,
    put_questions,
    read_questions,
)
from seal.domains.base import Context, Query
from seal.domains.passages import passage_digest
from seal.errors import InvalidInput, NotFound
from seal.limits import MAX_ROWS
from seal.manifest import MANIFEST_FILE
from seal.records import AdaptationCounts, LongRow, PreparedRecord
from seal.restem.seeds import derive_seed
from seal.runs.rows import RowCounter
from seal.runs.store import in_thread, pin_contexts, read_prepared
from seal.settings import AdaptationSpec, FileReference
from seal.v1 import trainer_pb2

log = structlog.get_logger(__name__)

TRAIN, HELD_OUT, RETAINED = "train", "held-out", "retained"
"""Pinned passages: with the questions that edits are chosen by, with those of the test, others."""
_ID_DIGITS = 16


async def prepare_adaptation(
    run: str, *, spec: AdaptationSpec, store: ArtifactStore, clients: ServiceClients
) -> PreparedRecord:
    """Pin an adaptation; what an earlier attempt has pinned stays.

    Raises:
        InvalidInput: a document or question is refused; the services have another base model; a
            setting that the model or the trainer cannot take; not one passage fits.
        NotFound: a file or the policy is not in the store.

    """
    if (before := await read_prepared(store, run)) is not None:
        return before
    await in_thread(check_policy, spec, store)
    model = await describe_model(spec, clients)
    documents, questions = await in_thread(read_documents, spec, store)
    passages = await cut_documents(spec, documents, clients.trainer)
    contexts, dropped = await in_thread(put_to_passages, spec, passages, questions)
    contexts[RETAINED] = await in_thread(load_retained, spec, contexts[TRAIN])
    check_adapter_sizes(spec, contexts)
    check_generator(spec, clients)
    writer, judge = await describe_writer(spec, clients), await describe_judge(spec, clients)
    passages_of = {TRAIN: contexts[TRAIN]}
    too_long = await find_long_rows(spec, passages_of, model, clients, writer=writer)
    check_some_passage_fits(contexts[TRAIN], too_long)
    pinned = await pin_contexts(
        store,
        run,
        contexts,
        model=model,
        writer=writer,
        judge=judge,
        # A title holds headings, which are text of a document
        too_long=tuple(row.model_copy(update={"title": ""}) for row in too_long),
        counts=AdaptationCounts(
            documents=len(documents),
            passages=len(contexts[TRAIN]),
            passages_too_long=len(too_long),
            reward_questions=sum(len(context.queries) for context in contexts[TRAIN]),
            held_out_questions=sum(len(context.queries) for context in contexts[HELD_OUT]),
            questions_dropped=dropped,
        ),
    )
    log.info("documents pinned", run=run, base_sha256=model.base_sha256, **pinned.contexts)
    return pinned


def check_policy(spec: AdaptationSpec, store: ArtifactStore) -> None:
    """Raises NotFound if the policy is not in the store."""
    if spec.policy is not None and not store.exists(f"{spec.policy.path}/{MANIFEST_FILE}"):
        raise NotFound(
            f"there is no adapter {spec.policy.sha256[:12]} in the store",
            field="spec.policy",
            remedy="give the policy of a run whose artifacts are in this store, or none",
        )


def read_documents(
    spec: AdaptationSpec, store: ArtifactStore
) -> tuple[tuple[Document, ...], tuple[GivenQuestion, ...]]:
    """The documents, and the questions on them that were given.

    Raises:
        InvalidInput: one cannot be read, or is not the file that it is said to be; there is too
            much text, or there are too many questions.
        NotFound: one is not in the store.

    """
    documents: list[Document] = []
    characters = 0
    for place, reference in enumerate(spec.data.documents):
        field = f"documents[{place}]"
        content = _content(store, reference, field)
        documents.append(read_document(reference.name, reference.media_type, content, field=field))
        characters += documents[-1].characters
        check_together(characters)
    if spec.questions.source == "self-made":
        return tuple(documents), ()
    given = [question for document in documents for question in document.questions]
    names = [document.name for document in documents]
    if spec.data.questions is not None:
        content = _content(store, spec.data.questions, "questions")
        given += read_questions("questions", content, documents=names, field="questions")
    check_named(given, names)
    return tuple(documents), tuple(given)


def _content(store: ArtifactStore, reference: FileReference, field: str) -> bytes:
    """The bytes of a file of the store, if they are those that it is known by."""
    try:
        content = store.read_bytes(reference.path)
    except NotFound as error:
        raise NotFound(
            f"{field}: {reference.path} is not in the store",
            field=field,
            remedy="upload it again",
        ) from error
    if hashlib.sha256(content).hexdigest() != reference.sha256:
        raise InvalidInput(
            f"{field}: {reference.path} is not the file with that sha256",
            field=f"{field}.sha256",
            remedy="upload the file again, and take the reference that comes back",
        )
    return content


async def cut_documents(
    spec: AdaptationSpec, documents: Sequence[Document], trainer: RowCounter
) -> tuple[Passage, ...]:
    """All passages, document after document. The tokens of all of them are counted in one go."""
    longest = spec.passages.max_tokens
    found = [await in_thread(pieces, document, max_tokens=longest) for document in documents]
    rows = [trainer_pb2.TrainingExample(completion=piece.text) for own in found for piece in own]
    counted = iter(await trainer.count_tokens(rows))
    cut = []
    for document, own in zip(documents, found, strict=True):
        # A row ends in an end-of-sequence token, which a piece has not
        counts = [max(1, next(counted) - 1) for _ in own]
        cut.append(await in_thread(pack, document, own, counts, max_tokens=longest))
    return tuple(chain.from_iterable(cut))


def put_to_passages(
    spec: AdaptationSpec, passages: Sequence[Passage], questions: Sequence[GivenQuestion]
) -> tuple[dict[str, tuple[Context, ...]], int]:
    """Passages with the questions that edits are chosen by, and with those of the test.

    With them the number of questions that were left out.

    Raises:
        InvalidInput: a question is about no passage, or none is left for the test.

    """
    bare = [_context(place, passage) for place, passage in enumerate(passages)]
    if spec.questions.source == "self-made":
        return {TRAIN: tuple(bare), HELD_OUT: ()}, 0
    parted = part_questions(
        put_questions(questions, passages),
        share=spec.questions.held_out_share,
        seed=derive_seed(spec.seed, "questions"),
    )
    if not parted.held_out:
        raise InvalidInput(
            f"of {len(questions)} questions none is left for the test, which the gate judges by",
            field="questions",
            remedy="give more questions, or none and let the model make its own",
        )
    asked: dict[bool, dict[int, list[Query]]] = {True: defaultdict(list), False: defaultdict(list)}
    for number, (is_test, put) in enumerate(
        [(False, put) for put in parted.reward] + [(True, put) for put in parted.held_out]
    ):
        query_id = f"{bare[put.passage].context_id}/{number}"
        asked[is_test][put.passage].append(Query(query_id, put.question, put.answers))
    train = tuple(_asked(context, asked[False][place]) for place, context in enumerate(bare))
    test = tuple(
        _asked(context, asked[True][place])
        for place, context in enumerate(bare)
        if asked[True][place]
    )
    return {TRAIN: train, HELD_OUT: test}, parted.repeated


def _context(place: int, passage: Passage) -> Context:
    """A passage as what is to be learnt; its id tells nothing of its text."""
    digest = passage_digest(passage.text)[:_ID_DIGITS]
    return Context(f"p{place:05d}-{digest}", passage.title, passage.text, ())


def _asked(context: Context, queries: Sequence[Query]) -> Context:
    return Context(context.context_id, context.title, context.text, tuple(queries))


def load_retained(spec: AdaptationSpec, passages: Sequence[Context]) -> tuple[Context, ...]:
    """The retained set, without the passages that are learnt; empty if nothing asks for it.

    Raises:
        InvalidInput: the file is refused; what is left is not enough for what is asked of it.
        NotFound: there is no such file.

    """
    if not spec.data.retained or not (spec.gate.retained_questions or spec.adapter.replay_rows):
        return ()
    learnt = {passage_digest(passage.text) for passage in passages}
    contexts = tuple(
        context
        for context in load_contexts(spec.data.retained)
        if passage_digest(context.text) not in learnt
    )
    parted = part_retained(
        contexts,
        questions=spec.gate.retained_questions,
        replay=spec.adapter.replay_rows,
        seed=spec.seed,
    )
    if spec.gate.retained_questions and not parted.queries:
        raise InvalidInput(
            "the retained set holds no passage but those that are learnt",
            field="spec.data.retained",
            remedy="name other passages, or set gate.retainedQuestions to 0",
        )
    if parted.replay_room < spec.adapter.replay_rows:
        raise InvalidInput(
            f"{spec.adapter.replay_rows} rows are to be replayed, the retained set has "
            f"{parted.replay_room} beside what the gate asks",
            field="spec.adapter.replayRows",
            remedy=f"give {parted.replay_room} or fewer, or a larger set in data.retained",
        )
    return contexts


def check_adapter_sizes(spec: AdaptationSpec, contexts: Contexts) -> None:
    """Refuse documents of more passages than one training takes, and trainings of too many steps.

    Raises:
        InvalidInput: naming the field.

    """
    passages, examples = len(contexts[TRAIN]), spec.inner.examples
    times = max(1, examples.passage_repeats)
    always = passages * times + spec.adapter.replay_rows
    if always > MAX_ROWS:
        each = f", each {times} times," if times > 1 else ""
        raise InvalidInput(
            f"{passages} passages{each} and {spec.adapter.replay_rows} replayed rows are more than "
            f"the {MAX_ROWS} rows of one training",
            field="documents",
            remedy="give fewer documents, or allow longer passages (passages.maxTokens)"
            + (", or repeat them less often (inner.examples.passageRepeats)" if each else ""),
        )
    rows = min(MAX_ROWS, always + passages * examples.max_examples)
    check_steps("adapter.optimizer", spec.adapter.optimizer, rows)
    rows = examples.max_examples + examples.passage_repeats
    check_steps("inner.optimizer", spec.inner.optimizer, rows)


def check_some_passage_fits(passages: Sequence[Context], too_long: Sequence[LongRow]) -> None:
    """Refuse documents of which the model can take nothing. Raises InvalidInput."""
    if len(too_long) < len(passages):
        return
    first = too_long[0]
    raise InvalidInput(
        f"every passage is too long for the model: the first has {first.tokens} tokens of "
        f"{first.what}, at most {first.limit} fit",
        field="spec.passages.maxTokens",
        remedy="cut the documents into shorter passages",
    )
