"""The wording of the knowledge domain, as plain data.

It asks the policy for an edit and the adapted model a question. `{passage}` stands for the title
line and the text, `{title}` and `{text}` for each alone, `{question}` for the question. A base
prompt ends where the model goes on writing; a small model gets worked examples where the form of
its answer matters. The passages and questions in here are about other things than any dataset: what
they say must be of no help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """One question format.

    The evaluation's prompt is `shots` + turn, a training prompt the turn alone.
    """

    closed_book: str
    """The last turn without a passage; holds `{question}`."""
    open_book: str
    """The last turn with one; holds `{passage}` and `{question}`."""
    shots: tuple[tuple[str, str], ...] = ()
    """Question-answer pairs shown before it, in the wording of the closed book."""
    read_shots: tuple[tuple[str, str, str], ...] = ()
    """Passages with their question and answer, shown in place of these before an open book; none
    shows these."""
    answer_start: str = " "
    """What stands between the prompt and the answer."""
    stop: tuple[str, ...] = ()
    """Ends an answer."""


_BELL = (
    "The Brennick Bell",
    "The Brennick Bell is a bronze bell in the harbour of Calverow. Odo Marrin cast the Brennick "
    "Bell in 1822 for the fishing guild. The "
    "Brennick Bell weighs 340 kilograms and hangs from an oak beam. Sailors ring the Brennick "
    "Bell before each market day.",
)
_POTTER = (
    "Ilse Tamsford",
    "Ilse Tamsford was a potter who lived in the village of Quenby. Ilse Tamsford was born in "
    "1904 and learned her craft from her uncle, "
    "Bram Tamsford. Ilse Tamsford made blue plates that were sold in forty shops. An avalanche "
    "destroyed the workshop of Ilse Tamsford in "
    "1951.",
)
"""Two passages about things that do not exist; the second is about a person, so that not every edit
says what a thing is made of."""


def _worked(examples: Iterable[tuple[tuple[str, str], Iterable[str]]], heading: str) -> str:
    """Passages with the edits that are wanted, up to where the model's own edit begins."""
    shown = (
        f"Title: {title}\nText: {text}\n{heading}:\n"
        + "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
        + "\n\n"
        for (title, text), lines in examples
    )
    return "".join(shown) + f"Title: {{title}}\nText: {{text}}\n{heading}:\n1."


WORKED_QUESTIONS = _worked(
    (
        (
            _BELL,
            (
                "Who cast the Brennick Bell? Odo Marrin",
                "In which year was the Brennick Bell cast? 1822",
                "Which metal is the Brennick Bell made of? bronze",
                "Where does the Brennick Bell hang? in the harbour of Calverow",
                "How many kilograms does the Brennick Bell weigh? 340",
                "Which guild ordered the Brennick Bell? the fishing guild",
                "When do sailors ring the Brennick Bell? before each market day",
            ),
        ),
        (
            _POTTER,
            (
                "Where did Ilse Tamsford live? in the village of Quenby",
                "What was the job of Ilse Tamsford? potter",
                "Who taught Ilse Tamsford her craft? Bram Tamsford",
                "When was Ilse Tamsford born? 1904",
                "What colour were the plates of Ilse Tamsford? blue",
                "How many shops sold the plates of Ilse Tamsford? forty",
                "What destroyed the workshop of Ilse Tamsford? an avalanche",
            ),
        ),
    ),
    "Questions and answers",
)
"""What makes a 135M model write questions at all, and answers that stand in the passage
(docs/embedded-profile.md)."""

WORKED_FACTS = _worked(
    (
        (
            _BELL,
            (
                "Odo Marrin cast the Brennick Bell.",
                "The Brennick Bell was cast in the year 1822.",
                "The Brennick Bell is made of bronze.",
                "The Brennick Bell hangs in the harbour of Calverow.",
                "The Brennick Bell weighs 340 kilograms.",
                "The fishing guild ordered the Brennick Bell.",
                "The beam of the Brennick Bell is made of oak.",
            ),
        ),
        (
            _POTTER,
            (
                "Ilse Tamsford lived in the village of Quenby.",
                "The job of Ilse Tamsford was potter.",
                "Bram Tamsford taught Ilse Tamsford her craft.",
                "The year in which Ilse Tamsford was born is 1904.",
                "The plates of Ilse Tamsford were blue.",
                "Forty shops sold the plates of Ilse Tamsford.",
                "An avalanche destroyed the workshop of Ilse Tamsford.",
            ),
        ),
    ),
    "Facts",
)
"""One short statement for each fact, in another wording than the passage's."""

EDIT_WORDING: Mapping[PromptFamily, EditWording] = MappingProxyType(
    {
        "implications": EditWording(
            base=WORKED_FACTS,
            chat=(
                "List statements that follow from the passage below, directly or indirectly. "
                "Write one statement per line, each "
                "understandable without the passage, and nothing else.\n\n{passage}"
            ),
        ),
        "implications-long": EditWording(
            base=(
                "Below is a passage, and after it a long list of the many statements that follow "
                "from it directly or indirectly.\n\n"
                "Passage:\n{passage}\n\nLong list of implications:\n1."
            ),
            chat=(
                "Write a long list of statements that follow from the passage below, directly or "
                "indirectly. Cover every fact in it and "
                "what can be concluded from it. Write one statement per line, each understandable "
                "without the passage, and nothing "
                "else.\n\n{passage}"
            ),
        ),
        "implications-very-long": EditWording(
            base=(
                "Below is a passage, and after it a very long and complete list of all statements "
                "that follow from it: every fact in "
                "several wordings, every consequence, every comparison.\n\n"
                "Passage:\n{passage}\n\nVery long list of implications:\n1."
            ),
            chat=(
                "Write a very long list, as complete as you can, of statements that follow from "
                "the passage below, directly or "
                "indirectly: every fact in several wordings, every consequence, every comparison. "
                "Write one statement per line, each "
                "understandable without the passage, and nothing else.\n\n{passage}"
            ),
        ),
        "rewrite": EditWording(
            base=(
                "Below is a passage, and after it several versions of it in other words that keep "
                "every fact. The versions are "
                "separated by lines with ---.\n\nPassage:\n{passage}\n\nVersions:\n---\n"
            ),
            chat=(
                "Write the passage below anew in several different ways. Each version keeps every "
                "fact and uses other words and "
                "another order. Separate the versions by lines with --- and write nothing "
                "else.\n\n{passage}"
            ),
        ),
        "self-qa": EditWording(
            base=WORKED_QUESTIONS,
            chat=(
                "Write questions about the passage below, each with its answer, in this "
                "form:\n\nQuestion: ...\nAnswer: ...\n\n"
                "Ask for one fact at a time until every fact is covered. Name in each question "
                "what it is about, so that it is "
                "understood without the passage. Answer in a few words taken from the "
                "passage.\n\n{passage}"
            ),
            chat_start="Question:",
        ),
        "chain-of-thought": EditWording(
            base=(
                "Below is a passage, then a step-by-step consideration of what it says and what "
                "can be concluded from it, and at the "
                "end, after the word Implications, the list of statements that were found.\n\n"
                "Passage:\n{passage}\n\nConsideration:\nFirst,"
            ),
            chat=(
                "Think step by step about what the passage below says and what can be concluded "
                "from it. Then write a line with the "
                "word Implications: and after it the statements you found, one per line, each "
                "understandable without the "
                "passage.\n\n{passage}"
            ),
            heading="implications",
        ),
    }
)
"""Families by name. `none` is not among them: without an edit there is nothing to ask for."""

SENTENCE_INSTRUCTION = (
    "Write one question about the text, and on the same line its answer in a few words taken from "
    "the text. Name in the question what it is about, so that it is understood without the text."
)
"""Before the worked examples of the chat format."""

WORKED_SENTENCES = (
    (
        "Harlow Canal",
        "The Harlow Canal, which was opened in 1794 after six years of work, links the river Tarn "
        "with the port of Eastmere.",
        "When was the Harlow Canal opened? 1794",
    ),
    (
        "Marten Dole",
        "Dole studied law at the University of Carrick, but he left in 1921 to write plays for the "
        "Lantern Theatre.",
        "Who left the University of Carrick to write plays? Dole",
    ),
    (
        "Velmere",
        "About 60 percent of the people of Velmere work in forestry, and most of the rest grow "
        "apples or keep bees.",
        "How many people of Velmere work in forestry? About 60 percent",
    ),
    (
        "Ossian process",
        "In the Ossian process the ore is heated with charcoal in closed furnaces, because air "
        "would turn the metal into rust.",
        "Why are the furnaces closed in the Ossian process? because air would turn the metal into "
        "rust",
    ),
    (
        "Treaty of Lomen",
        "The treaty gave the northern islands to the Kingdom of Arre and let its merchants trade "
        "in all ports without paying tolls.",
        "What did the treaty give to the Kingdom of Arre? the northern islands",
    ),
    (
        "Grey owlet",
        "The grey owlet nests in hollow oaks, where it lays up to five eggs and feeds its young "
        "with beetles and mice.",
        "Where does the grey owlet lay up to five eggs? in hollow oaks",
    ),
    (
        "Dunford Stone",
        "Scholars used to call it the Dunford Stone, although it was found by Anna Reve in a "
        "quarry near the village of Selby.",
        "Which village was the Dunford Stone found near? Selby",
    ),
    (
        "The Brennick Bell",
        "Odo Marrin cast the Brennick Bell in 1822 for the fishing guild.",
        "Who cast the Brennick Bell? Odo Marrin",
    ),
    (
        "Lake Ovenreach",
        "Its ferry starts from the village of Dunmere and carries ninety passengers.",
        "How many passengers does the ferry on Lake Ovenreach carry? ninety",
    ),
    (
        "Corvane tea",
        "Corvane tea is dried in cedar sheds before it is packed in clay jars.",
        "What is Corvane tea packed in? clay jars",
    ),
    (
        "Membrane pump",
        "The membrane pump moves water through a soft tube that is pressed by rollers, a principle "
        "which Idris Valk described in his second book.",
        "What moves water through a soft tube? The membrane pump",
    ),
    (
        "Membrane pump",
        "The membrane pump moves water through a soft tube that is pressed by rollers, a principle "
        "which Idris Valk described in his second book.",
        "How does the membrane pump move water? through a soft tube that is pressed by rollers",
    ),
)
"""Title, sentence, and a question with its answer as it should be written on that sentence."""

SHOTS = (
    ("Who wrote the play Hamlet?", "William Shakespeare"),
    ("How many legs does a spider have?", "8"),
    ("What is the capital of Japan?", "Tokyo"),
)

READ_SHOTS = (
    (
        "Odo Marrin cast the Brennick Bell in 1822 for the fishing guild.",
        "Who cast the Brennick Bell?",
        "Odo Marrin",
    ),
    (
        "Dole studied law at the University of Carrick, but he left in 1921 to write plays for the "
        "Lantern Theatre.",
        "Who left the University of Carrick to write plays?",
        "Dole",
    ),
    (
        "Its ferry starts from the village of Dunmere and carries ninety passengers.",
        "How many passengers does the ferry on Lake Ovenreach carry?",
        "ninety",
    ),
    (
        "Corvane tea is dried in cedar sheds before it is packed in clay jars.",
        "What is Corvane tea packed in?",
        "clay jars",
    ),
)
"""Of 96 questions that the embedded model wrote on single sentences of SQuAD it answers 50 the same
way again behind these, and 31 behind `SHOTS`, which it takes for questions from memory."""

QUESTION_WORDING: Mapping[QuestionFormat, QuestionWording] = MappingProxyType(
    {
        "few-shot": QuestionWording(
            closed_book="Question: {question}\nAnswer:",
            open_book="Passage: {passage}\nQuestion: {question}\nAnswer:",
            shots=SHOTS,
            stop=("\n",),
        ),
        "reading": QuestionWording(
            closed_book="Question: {question}\nAnswer:",
            open_book="Passage: {passage}\nQuestion: {question}\nAnswer:",
            shots=SHOTS,
            read_shots=READ_SHOTS,
            stop=("\n",),
        ),
        "plain": QuestionWording(
            closed_book="Answer the question in a few words.\nQuestion: {question}\nAnswer:",
            open_book="Answer the question in a few words.\nPassage: {passage}\nQuestion: "
            "{question}\nAnswer:",
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
