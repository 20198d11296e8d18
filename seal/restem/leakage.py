"""Finds passages on both sides of an experiment, which make its result worthless.

The digest ignores case, spacing and punctuation.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile

from seal.domains.base import Context
from seal.domains.words import split_spaceless
from seal.errors import InvalidInput

_GAP = re.compile(r"[\W_]+")


@lru_cache(maxsize=1024)  # rows of one passage follow one another
def passage_digest(text: str) -> str:
    """sha256 of a passage's letters and digits in lower case, word by word.

    Character by character in scripts without spaces. It is that of the bare text if it has none.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        words = _GAP.sub(" ", folded).split()
    else:
        spaced = _GAP.sub(_marks_or_space, folded).split()
        words = [part for word in spaced for part in split_spaceless(word)]
    return hashlib.sha256((" ".join(words) or folded).encode()).hexdigest()


def _marks_or_space(gap: re.Match[str]) -> str:
    """What stands between letters: marks of the letter before (many scripts' vowels), a space."""
    marks = "".join(takewhile(_is_mark, gap[0])) if gap.start() else ""
    return marks if len(marks) == len(gap[0]) else f"{marks} "


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def check_ids(contexts: Iterable[Context], *, where: str) -> None:
    """Refuse two passages under one id: their records would be taken for one passage's.

    `where`: the file or files that hold them, for the message.

    Raises:
        InvalidInput: names the two titles.
    """
    known: dict[str, Context] = {}
    for context in contexts:
        first = known.setdefault(context.context_id, context)
        if passage_digest(first.text) != passage_digest(context.text):
            raise InvalidInput(
                f"{where}: the passages {first.title!r} and {context.title!r} differ and have one "
                f"id, {context.context_id}",
                remedy="change the title of one of them",
            )


def check_leakage(train: Sequence[Context], validation: Sequence[Context]) -> None:
    """Refuse passages that are on both sides.

    Raises:
        InvalidInput: names the two titles of the first such passage, and how many there are.
    """
    trained = {passage_digest(context.text): context for context in train}
    shared = [
        (trained[digest], context)
        for context in validation
        if (digest := passage_digest(context.text)) in trained
    ]
    if not shared:
        return
    first, again = shared[0]
    more = f" ({len(shared)} passages are shared in all)" if len(shared) > 1 else ""
    raise InvalidInput(
        f"the validation passage {again.title!r} is also the training passage "
        f"{first.title!r}{more}",
        field="data.validation",
        remedy="take it out of one of the two files",
        train=first.context_id,
        validation=again.context_id,
    )
