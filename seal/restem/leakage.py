"""Finds passages on both sides of an experiment, which make its result worthless.

The digest ignores case, spacing and punctuation.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from seal.domains.base import Context
from seal.domains.words import split_spaceless
from seal.errors import InvalidInput


def passage_digest(text: str) -> str:
    """sha256 of a passage's letters and digits in lower case, word by word.

    Character by character in scripts without spaces. It is that of the bare text if it has none.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    parts = (part for word in _letters(folded).split() for part in split_spaceless(word))
    return hashlib.sha256((" ".join(parts) or folded).encode()).hexdigest()


def _letters(text: str) -> str:
    """Letters with their marks (vowels, in many scripts) and digits; a space for all else."""
    kept: list[str] = []
    for character in text:
        is_mark = unicodedata.category(character).startswith("M")
        keep = kept[-1:] not in ([], [" "]) if is_mark else character.isalnum()
        kept.append(character if keep else " ")
    return "".join(kept)


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
