"""Datasets as documents: each passage is a section, its questions are given ones.

The shapes are those of `seal.dataset_rows`; rows may lack questions.
"""

from __future__ import annotations

from seal.dataset_rows import Passage, Place
from seal.datasets import read_values
from seal.documents.model import Block, Document, GivenQuestion, Section, title_of_name
from seal.documents.text import paragraphs
from seal.domains.passages import check_questions, read_groups


def read_rows_document(name: str, text: str) -> Document:
    """A document with a section for each passage, under the passage's own title.

    Raises:
        InvalidInput: a bad row, named by its number and field, or a passage of too many questions;
            no text of it is in the message.

    """
    values = read_values(Place(name, tells_text=False), text)
    groups = read_groups(values, source=name, need_questions=False)
    for group in groups:
        check_questions(group)
    return Document(
        name,
        title="",
        sections=tuple(_section(group[0], name) for group in groups),
        questions=tuple(
            GivenQuestion(question.text, question.answers, name, index)
            for index, group in enumerate(groups)
            for part in group
            for question in part.questions
        ),
        unanswerable=sum(part.unanswerable for group in groups for part in group),
    )


def _section(passage: Passage, name: str) -> Section:
    title = " ".join(passage.title.split()) or title_of_name(name)
    blocks = tuple(Block(text.strip()) for text in paragraphs(passage.text) if text.strip())
    return Section((title,), blocks, stands_alone=True)
