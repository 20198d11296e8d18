"""The knowledge domain: a passage is learnt, and questions on it are answered without it.

An edit is text about the passage. Statements become documents, one per line, each under the
passage's title; question-answer pairs (family `self-qa`) stay whole. A question is asked with the
same last turn in training and in evaluation, so what an adapter gains on `question_answer:
prompted` is not a matter of format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from seal.domains import graders
from seal.domains.base import Context, Example, Query
from seal.domains.examples import document, documents, statements, title_line
from seal.domains.pairs import Pair, parse_pairs
from seal.domains.prompts import EDIT_WORDING, QUESTION_WORDING
from seal.errors import InvalidInput
from seal.prompts import Message, Prompt
from seal.settings import ExampleSettings, GraderName, PromptFamily, PromptFormat, QuestionFormat

_PLACEHOLDER = re.compile(r"\{(passage|title|text|question)\}")


class KnowledgeDomain:
    """`seal.domains.base.Domain` for passages."""

    name = "knowledge"

    def writes_edits(self, family: PromptFamily) -> bool:
        """False for `none`: the passage alone is trained on."""
        return family != "none"

    def edit_prompt(
        self, context_title: str, context_text: str, family: PromptFamily, format: PromptFormat
    ) -> Prompt:
        """Ask for an edit of a passage. Raises InvalidInput for `none`."""
        if family not in EDIT_WORDING:
            raise InvalidInput(
                f"prompt family {family!r} asks for no self-edit",
                field="edit.family",
                remedy="train on the passage alone, or use one of: " + ", ".join(EDIT_WORDING),
            )
        wording = EDIT_WORDING[family]
        title, text = " ".join(context_title.split()), context_text.strip()
        passage = "\n".join(part for part in (title, text) if part)
        if format == "base":
            return Prompt(
                text=fill(wording.base, passage=passage, title=title, text=text),
                stop=wording.base_stop,
            )
        message = Message("user", fill(wording.chat, passage=passage))
        return Prompt(text=wording.chat_start, messages=(message,), stop=wording.chat_stop)

    def parse_edit(
        self,
        text: str,
        *,
        context: Context,
        family: PromptFamily,
        settings: ExampleSettings,
        question_format: QuestionFormat,
    ) -> tuple[Example, ...]:
        """An edit's examples, at most `max_examples`; empty if there are none.

        Never raises, whatever the text.
        """
        if not self.writes_edits(family):
            return ()
        if family == "self-qa":
            pairs = [
                pair
                for pair in parse_pairs(text)
                if not settings.grounded_answers or is_grounded(pair, context.text)
            ]
            return pair_examples(
                pairs, title=context.title, settings=settings, question_format=question_format
            )[: settings.max_examples]
        lines = statements(after_heading(text, EDIT_WORDING[family].heading)) or statements(text)
        return tuple(
            document(context.title, line, settings) for line in lines[: settings.max_examples]
        )

    def passage_examples(
        self, title: str, text: str, settings: ExampleSettings
    ) -> tuple[Example, ...]:
        """The passage under its title, `passage_repeats` times.

        One beyond `max_characters` in several pieces, so that nothing is lost.
        """
        return documents(title, text, settings) * settings.passage_repeats

    def gold_examples(
        self, context: Context, settings: ExampleSettings, question_format: QuestionFormat
    ) -> tuple[Example, ...]:
        """The context's own questions, each with its first gold answer.

        In the form in which an edit's pairs are trained on.
        """
        pairs = [
            Pair(" ".join(query.question.split()), " ".join(query.answers[0].split()))
            for query in context.queries
        ]
        return pair_examples(
            pairs, title=context.title, settings=settings, question_format=question_format
        )

    def question_prompt(self, query: Query, question_format: QuestionFormat) -> Prompt:
        """The shots of the format, if it has some, and the query's turn."""
        wording = QUESTION_WORDING[question_format]
        last = turn(query.question, question_format, passage=query.context)
        if question_format == "chat":
            return Prompt(messages=(Message("user", last),), stop=wording.stop)
        shots = (
            f"{turn(question, question_format)}{wording.answer_start}{answer}\n\n"
            for question, answer in wording.shots
        )
        return Prompt(text="".join(shots) + last, stop=wording.stop)

    def answer_completion(self, gold: str, question_format: QuestionFormat = "few-shot") -> str:
        """The gold answer as it follows the question prompt."""
        return QUESTION_WORDING[question_format].answer_start + gold

    def clean_answer(self, text: str) -> str:
        """The answer in one line, without its label and without what follows it."""
        return graders.clean_answer(text)

    def grade(
        self, grader: GraderName, answer: str, golds: tuple[str, ...], logprob: float | None
    ) -> float | None:
        """See `seal.domains.graders.grade`."""
        return graders.grade(grader, answer, golds, logprob)


def is_grounded(pair: Pair, passage: str) -> bool:
    """True if the answer stands in the passage and not in its own question.

    As whole words after SQuAD's normalisation.
    """
    in_passage, in_question = (
        graders.grade("contains", text, (pair.answer,), None) for text in (passage, pair.question)
    )
    return in_passage == 1.0 and in_question == 0.0


def fill(wording: str, **values: str) -> str:
    """Put values in place of placeholders such as `{passage}`, in one pass.

    Braces within a value stay text.
    """
    return _PLACEHOLDER.sub(lambda place: values[place[1]], wording)


def after_heading(text: str, heading: str) -> str:
    """What follows the last line that consists of this word, or all without such a line."""
    if not heading:
        return text
    lines = text.splitlines()
    places = [
        index for index, line in enumerate(lines) if line.strip(" \t#*_:").casefold() == heading
    ]
    return "\n".join(lines[places[-1] + 1 :]) if places else text


def turn(question: str, question_format: QuestionFormat, *, passage: str = "") -> str:
    """The last turn of a question prompt, the same in evaluation and training.

    Open book with a passage.
    """
    wording = QUESTION_WORDING[question_format]
    one_line = " ".join(question.split())
    return fill(
        wording.open_book if passage else wording.closed_book,
        passage=passage.strip(),
        question=one_line,
    )


def pair_examples(
    pairs: Iterable[Pair], *, title: str, settings: ExampleSettings, question_format: QuestionFormat
) -> tuple[Example, ...]:
    """Question-answer pairs as documents under the title, or as turns with their answers.

    A turn is the one that the evaluation asks. A pair is kept whole or left out: one that is longer
    than the bound would lose its answer.

    For `chat` the turn is the user's message on a line of its own: the template around it is the
    model's, which a domain does not know.
    """
    start = QUESTION_WORDING[question_format].answer_start
    line_break = "\n" if question_format == "chat" else ""
    heading = title_line(title, settings)
    examples = (
        Example(
            prompt=turn(pair.question, question_format) + line_break, completion=start + pair.answer
        )
        if settings.question_answer == "prompted"
        else Example(
            prompt="", completion=f"{heading}Question: {pair.question}\nAnswer: {pair.answer}"
        )
        for pair in pairs
    )
    return tuple(
        example
        for example in examples
        if len(example.prompt) + len(example.completion) <= settings.max_characters
    )
