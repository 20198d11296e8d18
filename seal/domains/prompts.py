"""The wording of the knowledge domain, as plain data: how the policy is asked for an edit, and how the adapted model is asked a question.

`{passage}` stands for the title line and the text, `{title}` and `{text}` for each alone, `{question}` for the question. A base prompt
ends where the model goes on writing;
the small base model gets a worked example where the form of its answer matters. The passages and questions in here are about other
things than any dataset: what they say must be of no help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from seal.settings import PromptFamily, QuestionFormat


@dataclass(frozen=True)
class EditWording:
    """One prompt family."""

    base: str
    """Continuation prompt of the base format; holds `{passage}`."""
    chat: str
    """The user's message of the chat format; holds `{passage}`."""
    chat_start: str = ""
    """How the assistant's message starts in the chat format."""
    base_stop: tuple[str, ...] = ("\nPassage:", "\nTitle:", "\n\n\n")
    """Ends an edit in the base format: the model has turned to a passage of its own."""
    chat_stop: tuple[str, ...] = ()
    """Ends an edit in the chat format, beside the end of the turn."""
    heading: str = ""
    """If the edit has a line with this word, only what follows its last one is trained on."""


@dataclass(frozen=True)
class QuestionWording:
    """One question format: the evaluation's prompt is `shots` + turn, a training prompt the turn alone."""

    closed_book: str
    """The last turn without a passage; holds `{question}`."""
    open_book: str
    """The last turn with one; holds `{passage}` and `{question}`."""
    shots: tuple[tuple[str, str], ...] = ()
    """Question-answer pairs shown before it, in the wording of the closed book."""
    answer_start: str = " "
    """What stands between the prompt and the answer."""
    stop: tuple[str, ...] = ()
    """Ends an answer."""


WORKED_EXAMPLES = """Title: The Brennick Bell
Text: The Brennick Bell is a bronze bell in the harbour of Calverow. Odo Marrin cast the Brennick Bell in 1822 for the fishing guild. \
The Brennick Bell weighs 340 kilograms and hangs from an oak beam. Sailors ring the Brennick Bell before each market day.
Questions and answers:
1. Who cast the Brennick Bell? Odo Marrin
2. In which year was the Brennick Bell cast? 1822
3. Which metal is the Brennick Bell made of? bronze
4. Where does the Brennick Bell hang? in the harbour of Calverow
5. How many kilograms does the Brennick Bell weigh? 340
6. Which guild ordered the Brennick Bell? the fishing guild
7. When do sailors ring the Brennick Bell? before each market day

Title: Ilse Tamsford
Text: Ilse Tamsford was a potter who lived in the village of Quenby. Ilse Tamsford was born in 1904 and learned her craft from her \
uncle, Bram Tamsford. Ilse Tamsford made blue plates that were sold in forty shops. \
An avalanche destroyed the workshop of Ilse Tamsford in 1951.
Questions and answers:
1. Where did Ilse Tamsford live? in the village of Quenby
2. What was the job of Ilse Tamsford? potter
3. Who taught Ilse Tamsford her craft? Bram Tamsford
4. When was Ilse Tamsford born? 1904
5. What colour were the plates of Ilse Tamsford? blue
6. How many shops sold the plates of Ilse Tamsford? forty
7. What destroyed the workshop of Ilse Tamsford? an avalanche

"""
"""Two passages that do not exist, each with the edit that is wanted: what makes a 135M model write questions at all
(docs/embedded-profile.md). The second is about a person, so that not every question asks what a thing is made of."""

EDIT_WORDING: Mapping[PromptFamily, EditWording] = MappingProxyType(
    {
        "implications": EditWording(
            base=(
                "Below is a passage, and after it a list of statements that follow from it directly or indirectly.\n\n"
                "Passage:\n{passage}\n\nImplications:\n1."
            ),
            chat=(
                "List statements that follow from the passage below, directly or indirectly. Write one statement per line, each "
                "understandable without the passage, and nothing else.\n\n{passage}"
            ),
        ),
        "implications-long": EditWording(
            base=(
                "Below is a passage, and after it a long list of the many statements that follow from it directly or indirectly.\n\n"
                "Passage:\n{passage}\n\nLong list of implications:\n1."
            ),
            chat=(
                "Write a long list of statements that follow from the passage below, directly or indirectly. Cover every fact in it and "
                "what can be concluded from it. Write one statement per line, each understandable without the passage, and nothing "
                "else.\n\n{passage}"
            ),
        ),
        "implications-very-long": EditWording(
            base=(
                "Below is a passage, and after it a very long and complete list of all statements that follow from it: every fact in "
                "several wordings, every consequence, every comparison.\n\n"
                "Passage:\n{passage}\n\nVery long list of implications:\n1."
            ),
            chat=(
                "Write a very long list, as complete as you can, of statements that follow from the passage below, directly or "
                "indirectly: every fact in several wordings, every consequence, every comparison. Write one statement per line, each "
                "understandable without the passage, and nothing else.\n\n{passage}"
            ),
        ),
        "rewrite": EditWording(
            base=(
                "Below is a passage, and after it several versions of it in other words that keep every fact. The versions are "
                "separated by lines with ---.\n\nPassage:\n{passage}\n\nVersions:\n---\n"
            ),
            chat=(
                "Write the passage below anew in several different ways. Each version keeps every fact and uses other words and "
                "another order. Separate the versions by lines with --- and write nothing else.\n\n{passage}"
            ),
        ),
        "self-qa": EditWording(
            base=WORKED_EXAMPLES + "Title: {title}\nText: {text}\nQuestions and answers:\n1.",
            chat=(
                "Write questions about the passage below, each with its answer, in this form:\n\nQuestion: ...\nAnswer: ...\n\n"
                "Ask for one fact at a time until every fact is covered. Name in each question what it is about, so that it is "
                "understood without the passage. Answer in a few words taken from the passage.\n\n{passage}"
            ),
            chat_start="Question:",
        ),
        "chain-of-thought": EditWording(
            base=(
                "Below is a passage, then a step-by-step consideration of what it says and what can be concluded from it, and at the "
                "end, after the word Implications, the list of statements that were found.\n\n"
                "Passage:\n{passage}\n\nConsideration:\nFirst,"
            ),
            chat=(
                "Think step by step about what the passage below says and what can be concluded from it. Then write a line with the "
                "word Implications: and after it the statements you found, one per line, each understandable without the "
                "passage.\n\n{passage}"
            ),
            heading="implications",
        ),
    }
)
"""Families by name. `none` is not among them: without an edit there is nothing to ask for."""

SHOTS = (
    ("Who wrote the play Hamlet?", "William Shakespeare"),
    ("How many legs does a spider have?", "8"),
    ("What is the capital of Japan?", "Tokyo"),
)

QUESTION_WORDING: Mapping[QuestionFormat, QuestionWording] = MappingProxyType(
    {
        "few-shot": QuestionWording(
            closed_book="Question: {question}\nAnswer:",
            open_book="Passage: {passage}\nQuestion: {question}\nAnswer:",
            shots=SHOTS,
            stop=("\n",),
        ),
        "plain": QuestionWording(
            closed_book="Answer the question in a few words.\nQuestion: {question}\nAnswer:",
            open_book="Answer the question in a few words.\nPassage: {passage}\nQuestion: {question}\nAnswer:",
            stop=("\nQuestion:", "\nPassage:"),
        ),
        "chat": QuestionWording(
            closed_book="Answer in a few words: {question}",
            open_book="{passage}\n\nAnswer in a few words: {question}",
            answer_start="",
        ),
    }
)
"""Question formats by name. The user's message of `chat` is its turn."""
