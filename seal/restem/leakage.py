"""Finds passages on both sides of an experiment, which make its result worthless.

The digest ignores case, spacing and punctuation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seal.domains.base import Context
from seal.domains.passages import passage_digest
from seal.errors import InvalidInput


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
