"""The edits that are trained and the questions that are asked.

SEAL's own log, a SQuAD-style file, or the embedded corpus. The log (`rank_iter0.json` of the SEAL
repository) holds 50 passages with 5 self-edits each, as the published policy wrote them, and the
questions. Without it edits are derived: some of the passage's sentences, one a line. Either way an
edit becomes training rows by `seal.domains.knowledge`: lines under the title, and the passage
itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.base import Context, Query
from seal.domains.passages import context_id
from seal.errors import Internal, InvalidInput, NotFound
from seal.files import file_errors
from seal.settings import ExampleSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DERIVED_EDITS = 5
"""Edits derived from a passage, as many as the published k."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_REMEDY = "give the SEAL log rank_iter0.json"


@dataclass(frozen=True)
class EditCase:
    """One edit with its training rows and its context's questions."""

    case_id: str
    context: Context
    candidate: int
    examples: tuple[tuple[str, str], ...]
    """(prompt, completion) of every training row; the prompts are empty: rows are documents."""


@dataclass(frozen=True)
class Cases:
    """Edits in an order that mixes contexts."""

    cases: tuple[EditCase, ...]
    source: str
    """Where they come from, for the documents."""

    def take(self, count: int, *, queries: int = 0) -> tuple[EditCase, ...]:
        """The first `count` edits whose context has `queries` questions.

        They start again from the first if there are fewer.
        """
        fitting = [case for case in self.cases if len(case.context.queries) >= queries]
        if not fitting:
            raise InvalidInput(
                f"no passage has {queries} questions",
                field="size.evaluation_queries",
                remedy="ask for fewer questions",
            )
        return tuple(fitting[index % len(fitting)] for index in range(count))

    def grid(self, contexts: int, edits: int, *, queries: int) -> tuple[EditCase, ...]:
        """`edits` edits of each of `contexts` contexts that have `queries` questions.

        Or of as many contexts as there are.
        """
        by_context: dict[str, list[EditCase]] = {}
        for case in self.cases:
            if len(case.context.queries) >= queries:
                by_context.setdefault(case.context.context_id, []).append(case)
        full = [cases[:edits] for cases in by_context.values() if len(cases) >= edits]
        return tuple(case for cases in full[:contexts] for case in cases)


def load_cases(*, edits: Path | None, passages: Path | None) -> Cases:
    """Edits of the SEAL log, of a file of passages with questions, or of the embedded corpus.

    Without a log they are derived.

    Raises:
        InvalidInput: the file is no such log or dataset.
        NotFound: there is no such file.
    """
    if edits is not None:
        log = _read_log(edits)
        number = len({context.context_id for context, _, _ in log})
        return _cases(log, f"{len(log)} logged self-edits of {number} passages ({edits.name})")
    names = [str(passages)] if passages is not None else ["corpus://train", "corpus://validation"]
    contexts = [context for name in names for context in load_contexts(name)]
    derived = [
        (context, candidate, _derive(context, candidate))
        for context in contexts
        for candidate in range(DERIVED_EDITS)
    ]
    origin = passages.name if passages is not None else "the embedded corpus"
    return _cases(
        derived,
        f"{len(derived)} edits derived from {len(contexts)} passages of {origin} (sentences of "
        "the passage)",
    )


def documents_of_length(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, tokens: int, count: int
) -> tuple[str, ...]:
    """`count` texts, cut out of `texts`, that become training rows of exactly `tokens` tokens.

    The end token is one of them. Texts repeat if there are not enough. Raises Internal if none can
    be cut.
    """
    ids = tokenizer.encode("\n".join(texts), add_special_tokens=False)
    wanted = tokens - 1 - (len(tokenizer("").input_ids))
    ids = ids * (1 + 2 * wanted // max(1, len(ids)))
    found: list[str] = []
    for start in range(0, len(ids) - wanted, max(1, wanted // 4)):
        text = str(tokenizer.decode(ids[start : start + wanted]))
        if len(tokenizer(text).input_ids) + 1 == tokens:
            found.append(text)
        if len(found) == count:
            break
    if not found:
        raise Internal(f"no text of {tokens} tokens could be cut", remedy="give more text")
    return tuple(found[index % len(found)] for index in range(count))


def _cases(edits: Sequence[tuple[Context, int, str]], source: str) -> Cases:
    """Parse every edit, drop those without a statement, and mix by a fixed seed."""
    domain, settings = get_domain("knowledge"), ExampleSettings()
    cases = []
    for context, candidate, text in edits:
        own = domain.parse_parts(
            (text,),
            context=context,
            family="implications",
            settings=settings,
            question_format="plain",
            seed=0,
        )
        if own:
            rows = (
                *(part.example for part in own),
                *domain.passage_examples(context.title, context.text, settings),
            )
            examples = tuple((row.prompt, row.completion) for row in rows)
            cases.append(
                EditCase(f"{context.context_id}/{candidate}", context, candidate, examples)
            )
    random.Random(0).shuffle(cases)
    return Cases(tuple(cases), source)


def _derive(context: Context, candidate: int) -> str:
    """Some of a passage's sentences in their order, one a line.

    Which ones comes from the passage and the candidate alone.
    """
    sentences = _SENTENCE_END.split(context.text.strip())
    chooser = random.Random(f"{context.context_id} {candidate}")
    kept = sorted(
        chooser.sample(
            range(len(sentences)), chooser.randint((len(sentences) + 1) // 2, len(sentences))
        )
    )
    return "\n".join(sentences[index] for index in kept)


def _read_log(file: Path) -> list[tuple[Context, int, str]]:
    """(context, candidate, text of the edit) of every completion in the log."""
    with file_errors(file):
        if not file.is_file():
            raise NotFound(f"there is no file {file}", field="edits", remedy=_REMEDY)
        text = file.read_text(encoding="utf-8")
    try:
        return list(_log_edits(json.loads(text)["articles"]))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{file} is no SEAL log: {error!r}", field="edits", remedy=_REMEDY
        ) from error


def _log_edits(articles: Iterable[Any]) -> Iterator[tuple[Context, int, str]]:
    for article in articles:
        name = context_id(article["title"], article["context"])
        asked = {
            row["question"]: row["answer"]
            for completion in article["completions"]
            for row in completion["questions"]
        }
        queries = tuple(
            Query(f"{name}/{index}", question, (answer,))
            for index, (question, answer) in enumerate(asked.items())
        )
        context = Context(name, article["title"], article["context"], queries)
        for candidate, completion in enumerate(article["completions"]):
            yield context, candidate, completion["text"]
