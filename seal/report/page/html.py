"""The page: one self-contained HTML file from a `Report` and nothing else.

It needs neither scripts nor the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seal.domains.base import DomainWords
from seal.report.numbers.entries import (
    AnswerEntry,
    Decision,
    EditEntry,
    PassageEntry,
    PassageGroup,
    QuestionEntry,
)
from seal.report.numbers.formats import GRADER_WORDS, MISSING, plain, plural, score
from seal.report.numbers.model import Report, right_of
from seal.report.numbers.words import DECISION_WORDS, name_of, worded
from seal.report.page import appendix
from seal.report.page.markup import Child, Html, details, facts, join, paragraph, table, tag
from seal.report.page.opening import opening
from seal.report.page.parts import parts_of
from seal.report.page.style import CSS

OPEN_PASSAGES = 2
"""Passages of each part that are unfolded when the page opens."""
MARKS: Mapping[float, str] = {1.0: "✓", 0.0: "✗"}

Section = Callable[[Report], Html | None]


def render_html(report: Report) -> str:
    """The page as text. Everything that a model or a data set wrote is escaped."""
    from seal.report.page import results, rollouts  # these load matplotlib

    parts: tuple[tuple[str, str, Section], ...] = (
        ("results", "What each kind of training gives", results.results),
        ("rewards", "Rewards of the candidates", rollouts.rewards),
        ("edits", "How the edits look", rollouts.edits),
        ("forgetting", "What is forgotten", results.forgetting),
        ("cost", "Time, tokens and storage", appendix.cost),
        ("kept", "Edits kept and dropped", kept_and_dropped),
        ("answers", "Answers before and after", answers),
        ("settings", "Settings", appendix.settings),
    )
    filled = [
        (name, title, body)
        for name, title, section in parts
        if (body := section(report)) is not None
    ]
    content = join(
        opening(report),
        tag(
            "nav",
            *(tag("a", title, href=f"#{name}") for name, title, _ in filled),
            aria_label="Parts",
        ),
        *(tag("section", tag("h2", title), body, id=name) for name, title, body in filled),
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        tag("title", f"SEAL run {report.run}"),
        tag("style", Html(CSS)),
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', content), lang='en')}\n"


def kept_and_dropped(report: Report) -> Html | None:
    """Per round and training passage.

    Kept edits beside dropped ones, and the answers before and after each.
    """
    if not any(group.passages for group in report.rollout_details):
        return None
    grader = report.spec.evaluation.grader
    return join(
        paragraph(
            f"For every training {report.words.context}: left the self-edits that the next policy "
            "learnt, right the others with the reason, and below them what the model answered "
            f"before, and after training on each edit. {_marks(report)} Edits have the numbers "
            "that seal status --adapters gives them."
        ),
        facts(
            (name_of(decision), worded(DECISION_WORDS[decision], report.words))
            for decision in _decisions(report)
        ),
        *(_round(group, grader, report.words) for group in report.rollout_details),
    )


def _marks(report: Report) -> str:
    """What the marks before an answer say."""
    return f"✓: {GRADER_WORDS[right_of(report.spec)]}; ✗: not so."


def _decisions(report: Report) -> list[Decision]:
    """What became of the edits that are shown."""
    there = {
        edit.decision
        for group in report.rollout_details
        for passage in group.passages
        for edit in passage.edits
    }
    return [decision for decision in DECISION_WORDS if decision in there]


def _round(group: PassageGroup, grader: str, words: DomainWords) -> Html:
    passages = (
        details(
            _edits_summary(passage, grader),
            _text(passage),
            _sides(passage, grader, words),
            _answers_of(passage, _candidate_heads(passage)),
            open_=place < OPEN_PASSAGES,
        )
        for place, passage in enumerate(group.passages)
    )
    return join(tag("h3", f"Round {group.round}"), _shown(group, words), *passages)


def _shown(group: PassageGroup, words: DomainWords) -> Html | None:
    if len(group.passages) == group.passages_total:
        return None
    return tag(
        "p",
        f"The first {len(group.passages)} of {plural(group.passages_total, words.context)}; all "
        "are in records.jsonl of the stage.",
        class_="soft",
    )


def _edits_summary(passage: PassageEntry, grader: str) -> Html:
    kept = [edit for edit in passage.edits if edit.decision == "kept"]
    rewards = ", ".join(score(edit.reward, "score", grader) for edit in kept)
    outcome = (
        f"kept {len(kept)} of {plural(len(passage.edits), 'edit')} (reward {rewards})"
        if kept
        else f"kept none of {plural(len(passage.edits), 'edit')}"
    )
    return join(
        tag("b", tag("bdi", passage.title or passage.context_id)),
        f" · before {score(passage.baseline, 'score', grader)} · {outcome}",
    )


def _text(passage: PassageEntry) -> Html | None:
    return tag("blockquote", passage.text, dir="auto") if passage.text else None


def _sides(passage: PassageEntry, grader: str, words: DomainWords) -> Html:
    """Two columns: kept and dropped."""
    kept = [edit for edit in passage.edits if edit.decision == "kept"]
    dropped = [edit for edit in passage.edits if edit.decision != "kept"]
    return tag(
        "div",
        tag(
            "div",
            tag("h4", "Kept"),
            *(_card(edit, grader) for edit in kept),
            None if kept else tag("p", f"No edit of this {words.context}.", class_="soft"),
            class_="kept",
        ),
        tag(
            "div",
            tag("h4", "Dropped"),
            *(_card(edit, grader) for edit in dropped),
            None if dropped else tag("p", "None.", class_="soft"),
            class_="dropped",
        ),
        class_="sides",
    )


def _card(edit: EditEntry, grader: str) -> Html:
    """One edit: fate, numbers, text, training examples."""
    gained = score(edit.gain, "score", grader, signed=True)
    reward = score(edit.reward, "score", grader)
    numbers = f" reward {reward}, gain {gained}, {plural(edit.tokens, 'token')}"
    return tag(
        "div",
        paragraph(
            tag("b", f"Edit {edit.candidate + 1} "),
            tag("span", name_of(edit.decision), class_="tagged"),
            numbers,
            ", cut off" if edit.truncated else None,
        ),
        parts_of(edit) if edit.groups else _whole_text(edit),
        _examples(edit),
        class_="card",
    )


def _whole_text(edit: EditEntry) -> Html:
    if not edit.text.strip():
        return tag("p", "(empty text)", class_="soft")
    return tag("pre", edit.text, dir="auto")


def _count_of_examples(edit: EditEntry) -> str:
    shown, total = len(edit.examples), edit.examples_total
    counted = plural(total, "training example")
    return counted if shown == total else f"the first {shown} of {counted}"


def _examples(edit: EditEntry) -> Html:
    if not edit.examples_total:
        return tag("p", "No training example could be parsed from it.", class_="soft")
    items = (
        tag(
            "li",
            tag("span", example.prompt, class_="asked") if example.prompt else None,
            " " if example.prompt else None,
            example.completion,
            dir="auto",
        )
        for example in edit.examples
    )
    return details(_count_of_examples(edit), tag("ol", *items, class_="examples"))


def _candidate_heads(passage: PassageEntry) -> dict[str, str]:
    return {"before": "before"} | {
        edit.key: f"edit {edit.candidate + 1} ({name_of(edit.decision)})" for edit in passage.edits
    }


def answers(report: Report) -> Html | None:
    """Per validation passage: each question with the answers of all rows."""
    group = report.validation_details
    if group is None or not group.passages:
        return None
    heads = {row.key: row.label for row in report.rows}
    return join(
        paragraph(
            "What each trained model answered to the questions on the validation "
            f"{report.words.context}s. {_marks(report)} With several edits or repeats the first "
            "one is shown."
        ),
        _shown(group, report.words),
        *(
            details(
                _answers_summary(passage, heads),
                _text(passage),
                _answers_of(passage, heads),
                open_=place < OPEN_PASSAGES,
            )
            for place, passage in enumerate(group.passages)
        ),
    )


def _answers_summary(passage: PassageEntry, heads: Mapping[str, str]) -> Html:
    """How many answers of each row are right."""
    right = []
    for key, label in heads.items():
        graded = [
            answer.right
            for question in passage.questions
            if (answer := question.answers.get(key)) and answer.right is not None
        ]
        if graded:
            right.append(f"{label} {sum(graded):.0f}/{len(graded)}")
    return join(tag("b", tag("bdi", passage.title or passage.context_id)), f" · {', '.join(right)}")


def _answers_of(passage: PassageEntry, heads: Mapping[str, str]) -> Html:
    """A table of questions and answers; columns that nobody answered are left out."""
    columns = [
        key for key in heads if any(key in question.answers for question in passage.questions)
    ]
    several = any(len(question.golds) > 1 for question in passage.questions)
    golds = "gold answers, any of them counts" if several else "gold answer"
    head: list[Child] = ["question", golds, *(heads[key] for key in columns)]
    rows = [_question_cells(question, columns) for question in passage.questions]
    return table(
        "Questions and answers",
        head,
        rows,
        words=dict.fromkeys(range(len(head)), ""),
        class_="answers",
    )


def _question_cells(question: QuestionEntry, columns: list[str]) -> list[Child]:
    return [
        tag("bdi", question.question),
        _golds(question),
        *(_answer_cell(question.answers.get(key)) for key in columns),
    ]


def _golds(question: QuestionEntry) -> Html:
    parts = (part for gold in question.golds for part in (" / ", tag("bdi", gold)))
    return join(*list(parts)[1:])


def _answer_cell(answer: AnswerEntry | None) -> Html:
    if answer is None:
        return join(MISSING)
    mark = (
        "ungraded"
        if answer.right is None
        else MARKS.get(answer.right, plain(answer.right, digits=2))
    )
    return join(tag("span", mark, class_="mark"), " ", tag("bdi", answer.answer or "(empty)"))
