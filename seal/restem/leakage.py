"""Finds contexts on both sides of an experiment, which make its result worthless.

When two are the same says their domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seal.domains.base import Context, Domain
from seal.errors import InvalidInput


def check_ids(contexts: Iterable[Context], *, domain: Domain, where: str) -> None:
    """Refuse two contexts under one id: their records would be taken for those of one.

    `where`: the file or files that hold them, for the message.

    Raises:
        InvalidInput: names the two titles.
    """
    known: dict[str, Context] = {}
    for context in contexts:
        first = known.setdefault(context.context_id, context)
        if domain.digest(first.text) != domain.digest(context.text):
            raise InvalidInput(
                f"{where}: the {domain.words.context}s {first.title!r} and {context.title!r} "
                f"differ and have one id, {context.context_id}",
                remedy="change the title of one of them",
            )


def check_leakage(
    train: Sequence[Context], validation: Sequence[Context], *, domain: Domain
) -> None:
    """Refuse contexts that are on both sides.

    Raises:
        InvalidInput: names the two titles of the first of them, and how many there are.
    """
    trained = {domain.digest(context.text): context for context in train}
    shared = [
        (trained[digest], context)
        for context in validation
        if (digest := domain.digest(context.text)) in trained
    ]
    if not shared:
        return
    first, again = shared[0]
    one = domain.words.context
    more = f" ({len(shared)} {one}s are shared in all)" if len(shared) > 1 else ""
    raise InvalidInput(
        f"the validation {one} {again.title!r} is also the training {one} {first.title!r}{more}",
        field="data.validation",
        remedy="take it out of one of the two files",
        train=first.context_id,
        validation=again.context_id,
    )
