"""The knowledge domain: a passage is learnt, and questions on it are answered without it.

An edit is text about the passage. Statements become documents, one per line, each under the
passage's title; question-answer pairs (families `self-qa` and `self-qa-by-sentence`) stay whole. A
question is asked with the same last turn in training and in evaluation, so what an adapter gains on
`question_answer: prompted` is not a matter of format. All families but `self-qa-by-sentence` have
one part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from seal.dataset_rows import SHAPES, Place
from seal.domains import affinity, by_sentence, graders
from seal.domains.base import (
    Context,
    DomainWords,
    Example,
    LoadedContexts,
    Measure,
    PartExample,
    PartPrompt,
    Query,
    View,
)
from seal.domains.examples import document, documents, statements, title_line
from seal.domains.filters import helpful_pairs, spread
from seal.domains.pairs import Pair, parse_pairs
from seal.domains.passages import contexts_of, passage_digest, read_groups
from seal.domains.prompts import EDIT_WORDING, QUESTION_WORDING, EditWording
from seal.errors import InvalidInput
from seal.prompts import Message, Prompt
from seal.settings import (
    BY_SENTENCE,
    DOMAIN_OPTIONS,
    DomainName,
    DomainOptions,
    ExampleSettings,
    OptimizerSettings,
    PromptFamily,
    PromptFormat,
    QuestionFormat,
    TextGrader,
)

MEASURES = (
    Measure(
        "f1",
        "F1",
        "token F1",
        "the overlap of words with the gold answer that fits best (token F1)",
        "the overlap of words with the gold answer that fits best (token F1), in percent",
    ),
    Measure(
        "exact",
        "exact match",
        "exact match",
        "the answer is a gold answer, up to case, punctuation and articles (exact match)",
        "share of answers for which the answer is a gold answer, up to case, punctuation and "
        "articles (exact match)",
    ),
    Measure(
        "contains",
        "contains",
        "accuracy (contains)",
        "a gold answer occurs in the answer as whole words (contains)",
        "share of answers in which a gold answer occurs in the answer as whole words (contains); "
        "on other passages: accuracy",
    ),
)
"""A model that recites the passage holds many a gold answer (contains) and gives few (exact), so
that none of the three is enough alone."""
WORDS = DomainWords(
    context="passage",
    right="contains",
    shapes=SHAPES,
    story="The model was given {contexts} that it had not been trained on (a passage is a short "
    "text on one subject) and wrote its own study notes on each: such notes are a self-edit. A "
    "small adapter (a set of extra weights) was trained on the notes together with the passage, "
    "and the adapted model then answered questions on the passage from memory, without seeing it: "
    "{questions} in all. The baseline is the base model, which answers the same questions without "
    "having learnt anything.",
    story_without_edits="The model was given {contexts} that it had not been trained on (a passage "
    "is a short text on one subject) and had a small adapter (a set of extra weights) trained on "
    "each; the adapted model then answered questions on the passage from memory, without seeing "
    "it: {questions} in all. The baseline is the base model, which answers the same questions "
    "without having learnt anything.",
    glossary=(
        ("passage", "a text with a title, of which the model is to know the content by heart"),
        ("question", "asked on a passage; its gold answers are known, and any of them counts"),
        ("self-edit", "what the model writes on a passage in order to be trained on it"),
        ("base model", "the model as it was before: the baseline of all that follows"),
        ("passage alone", "the model trained on the bare text: what self-edits have to beat"),
        (
            "gold questions",
            "the model trained on the very questions and answers it is then asked: more than "
            "that no self-edit can reach",
        ),
    ),
    measured="How well questions are answered, from memory, after each kind of training on "
    "passages that the writing of self-edits was never trained on. F1: how far the words of the "
    "answer are those of the gold answer. Exact match: it is the gold answer. Contains: the gold "
    "answer stands in it, which a model reaches that recites the passage and answers nothing.",
    read_together="F1, exact match and contains grade the answers, and are read together: who "
    "recites the passage has many answers that contain the right one and few that are it.",
    rows=MappingProxyType(
        {
            "base": "base model",
            "passage": "passage alone",
            "passage-equal-steps": "passage alone, as many steps as the edits",
            "edit": "self-edits, round {round}",
            "gold": "gold questions (upper bound)",
            "open-book": "open book: the passage before the question",
        }
    ),
    short_rows=MappingProxyType(
        {
            "base": "base model",
            "passage": "passage alone",
            "passage-equal-steps": "passage, equal steps",
            "gold": "gold questions",
            "open-book": "open book",
        }
    ),
    reference="passage alone",
    bounds=MappingProxyType(
        {
            "passage": "trained on the bare text, with its own rate and epochs if the run gives it "
            "some",
            "passage-equal-steps": "the same text as often as it takes to train as long as on the "
            "edits",
            "gold": "trained on the very questions and answers that are asked: no self-edit can "
            "reach more",
            "open-book": "nothing is trained; the base model reads the passage before it answers",
        }
    ),
)
_PLACEHOLDER = re.compile(r"\{(passage|title|text|question)\}")


class KnowledgeDomain:
    """`seal.domains.base.Domain` for passages."""

    name: DomainName = "knowledge"
    options: DomainOptions = DOMAIN_OPTIONS["knowledge"]
    measures = MEASURES
    words = WORDS

    def answers_file(self, name: str) -> str | None:
        """None: gold answers stand beside their questions."""
        return None

    def read(
        self,
        values: Iterable[tuple[Place, object]],
        *,
        source: str,
        answers: object = None,
    ) -> LoadedContexts:
        """Passages in the shapes of `seal.dataset_rows`, each with all its questions."""
        return contexts_of(read_groups(values, source=source))

    def digest(self, text: str) -> str:
        """See `seal.domains.passages.passage_digest`."""
        return passage_digest(text)

    def writes_edits(self, family: PromptFamily) -> bool:
        """False for `none`: the passage alone is trained on."""
        return family != "none"

    def edit_prompts(
        self,
        title: str,
        text: str,
        family: PromptFamily,
        format: PromptFormat,
        *,
        trained: bool = False,
    ) -> tuple[PartPrompt, ...]:
        """Ask for an edit of a passage. Raises InvalidInput for `none`."""
        if family == BY_SENTENCE:
            return by_sentence.part_prompts(title, text, format, trained=trained)
        if family not in EDIT_WORDING:
            raise InvalidInput(
                f"prompt family {family!r} asks for no self-edit",
                field="edit.family",
                remedy="train on the passage alone, or use one of: "
                + ", ".join((*EDIT_WORDING, BY_SENTENCE)),
            )
        return (PartPrompt(whole_prompt(title, text, EDIT_WORDING[family], format)),)

    def parse_parts(
        self,
        texts: Sequence[str],
        *,
        context: Context,
        family: PromptFamily,
        settings: ExampleSettings,
        question_format: QuestionFormat,
        seed: int,
    ) -> tuple[PartExample, ...]:
        """An edit's examples, at most `max_examples`; empty if there are none.

        Never raises, whatever the texts.
        """
        if not self.writes_edits(family) or not texts:
            return ()
        if family in ("self-qa", BY_SENTENCE):
            return self._parse_pairs(texts, context, family, settings, question_format)
        text = texts[0]
        lines = statements(after_heading(text, EDIT_WORDING[family].heading)) or statements(text)
        return tuple(
            PartExample(0, document(context.title, line, settings))
            for line in lines[: settings.max_examples]
        )

    def _parse_pairs(
        self,
        texts: Sequence[str],
        context: Context,
        family: PromptFamily,
        settings: ExampleSettings,
        question_format: QuestionFormat,
    ) -> tuple[PartExample, ...]:
        """The question-answer pairs of an edit that its settings let through."""
        if family == BY_SENTENCE:
            sources, parts_per_text = by_sentence.part_texts(context.text), len(by_sentence.STARTS)
            texts = texts[: len(sources) * parts_per_text]
            written = ((part, by_sentence.parse_part(text)) for part, text in enumerate(texts))
            pairs = [(part, pair) for part, pair in written if pair is not None]
        else:
            sources, parts_per_text = (context.text,), 1
            pairs = [(0, pair) for pair in parse_pairs(texts[0])]
        kept = helpful_pairs(
            pairs,
            lambda part: sources[part // parts_per_text],
            title=context.title,
            settings=settings,
        )
        examples = pair_parts(
            kept, title=context.title, settings=settings, question_format=question_format
        )
        return spread(examples, settings.max_examples, parts_per_text=parts_per_text)

    def optimizer(self, texts: Sequence[str], base: OptimizerSettings) -> OptimizerSettings:
        """`base`: a text does not say how it is learnt."""
        return base

    def choices(self, texts: Sequence[str]) -> Mapping[str, str]:
        """None: a text chooses nothing."""
        return {}

    def edit_schema(self, family: PromptFamily, format: PromptFormat) -> str | None:
        """None: edits are free text."""
        return None

    def gold_parts(
        self, context: Context, family: PromptFamily, format: PromptFormat
    ) -> tuple[tuple[PartPrompt, str], ...]:
        """The gold pairs as one `self-qa` edit or at their sentences; no statements."""
        if family == BY_SENTENCE:
            return by_sentence.gold_parts(context, format)
        pairs = gold_pairs(context)
        if family != "self-qa" or not pairs:
            return ()
        (part,) = self.edit_prompts(context.title, context.text, family, format, trained=True)
        return ((part, written_pairs(pairs, format)),)

    def affinity(self, question: str, answer: str, query: Query, *, title: str) -> float:
        """See `seal.domains.affinity.affinity`."""
        return affinity.affinity(question, answer, query.question, title=title)

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
        parts = pair_parts(
            ((0, pair) for pair in gold_pairs(context)),
            title=context.title,
            settings=settings,
            question_format=question_format,
        )
        return tuple(part.example for part in parts)

    def question_prompt(self, query: Query, question_format: QuestionFormat) -> Prompt:
        """The shots of the format, if it has some, and the query's turn."""
        wording = QUESTION_WORDING[question_format]
        last = turn(query.question, question_format, passage=query.context)
        if question_format == "chat":
            return Prompt(messages=(Message("user", last),), stop=wording.stop)
        shown = [("", question, answer) for question, answer in wording.shots]
        if query.context and wording.read_shots:
            shown = list(wording.read_shots)
        shots = (
            f"{turn(question, question_format, passage=passage)}{wording.answer_start}{answer}\n\n"
            for passage, question, answer in shown
        )
        return Prompt(text="".join(shots) + last, stop=wording.stop)

    def answer_completion(self, gold: str, question_format: QuestionFormat = "few-shot") -> str:
        """The gold answer as it follows the question prompt."""
        return QUESTION_WORDING[question_format].answer_start + gold

    def single_tokens(self, question_format: QuestionFormat) -> tuple[str, ...]:
        """None: text is tokenised as it comes."""
        return ()

    def clean_answer(self, text: str, question_format: QuestionFormat) -> str:
        """The answer in one line, without its label and without what follows it."""
        return graders.clean_answer(text)

    def views(self, query: Query, votes: int, *, seed: int) -> tuple[View, ...]:
        """The query alone: there is one way to ask it."""
        return (View(query, str),)

    def vote(self, answers: Sequence[str]) -> str:
        """The answer to the one view."""
        return answers[0]

    def grade(
        self, grader: TextGrader, answer: str, golds: tuple[str, ...], logprob: float | None
    ) -> float | None:
        """See `seal.domains.graders.grade`."""
        return graders.grade(grader, answer, golds, logprob)

    def measure(self, answer: str, golds: tuple[str, ...]) -> Mapping[str, float]:
        """Exact match, containment and word F1."""
        return {
            "exact": graders.grade("exact", answer, golds, None) or 0.0,
            "contains": graders.grade("contains", answer, golds, None) or 0.0,
            "f1": graders.grade("f1", answer, golds, None) or 0.0,
        }


def whole_prompt(title: str, text: str, wording: EditWording, format: PromptFormat) -> Prompt:
    """Ask for an edit of the whole passage."""
    title, text = " ".join(title.split()), text.strip()
    passage = "\n".join(part for part in (title, text) if part)
    if format == "base":
        return Prompt(
            text=fill(wording.base, passage=passage, title=title, text=text),
            stop=wording.base_stop,
        )
    message = Message("user", fill(wording.chat, passage=passage))
    return Prompt(text=wording.chat_start, messages=(message,), stop=wording.chat_stop)


def gold_pairs(context: Context) -> list[Pair]:
    """The context's own questions, each with its first gold answer, in one line each."""
    return [
        Pair(" ".join(query.question.split()), " ".join(query.answers[0].split()))
        for query in context.queries
    ]


def written_pairs(pairs: Iterable[Pair], format: PromptFormat) -> str:
    """Pairs as a `self-qa` edit that goes on from its prompt: numbered lines, or with labels.

    The prompt has written the first number or label.
    """
    if format == "base":
        lines = (f"{number}. {pair.question} {pair.answer}" for number, pair in enumerate(pairs, 1))
        return "\n".join(lines).removeprefix("1.")
    labelled = (f"Question: {pair.question}\nAnswer: {pair.answer}" for pair in pairs)
    return "\n\n".join(labelled).removeprefix("Question:")


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


def pair_parts(
    pairs: Iterable[tuple[int, Pair]],
    *,
    title: str,
    settings: ExampleSettings,
    question_format: QuestionFormat,
) -> tuple[PartExample, ...]:
    """Question-answer pairs as documents under the title, or as turns with their answers.

    A turn is the one that the evaluation asks. A pair is kept whole or left out: one that is longer
    than the bound would lose its answer. With each pair comes the part that it stands in.

    For `chat` the turn is the user's message on a line of its own: the template around it is the
    model's, which a domain does not know.
    """
    start = QUESTION_WORDING[question_format].answer_start
    line_break = "\n" if question_format == "chat" else ""
    heading = title_line(title, settings)
    found = []
    for part, pair in pairs:
        if settings.question_answer == "prompted":
            asked = turn(pair.question, question_format) + line_break
            example = Example(prompt=asked, completion=start + pair.answer)
        else:
            text = f"{heading}Question: {pair.question}\nAnswer: {pair.answer}"
            example = Example(prompt="", completion=text)
        if len(example.prompt) + len(example.completion) <= settings.max_characters:
            found.append(PartExample(part, example, pair.question, pair.answer))
    return tuple(found)
