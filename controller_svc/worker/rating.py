"""Which candidates of a context are trained on by the rubric: rated once, and written down.

The ratings come from a model at an endpoint, which may say another thing the next time: what was
committed first decides, also after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller_svc.worker.bench import Bench
from seal.domains.base import Context
from seal.records import ContextEditsRecord, RatingsRecord, edit_text
from seal.runs.store import key_of

FOLDER = "ratings"


async def rate_edits(bench: Bench, context: Context, written: ContextEditsRecord) -> RatingsRecord:
    """Have the edits of a context rated that can be trained on; commit."""
    texts = [
        (edit.candidate, edit_text(written.parts, edit)) for edit in written.edits if edit.examples
    ]
    rated: Mapping[int, float | None] = {}
    if texts:
        async with bench.places:
            ratings = await bench.clients.evaluator.rate(bench.requests.rate(context, texts))
        rated = dict(zip([candidate for candidate, _ in texts], ratings, strict=True))
    record = RatingsRecord(
        context_id=context.context_id,
        ratings=tuple(rated.get(edit.candidate) for edit in written.edits),
    )
    return await bench.files.commit(FOLDER, key_of(context.context_id), record)


def best_rated(
    written: ContextEditsRecord, ratings: Sequence[float | None], *, count: int
) -> tuple[int, ...]:
    """The `count` candidates with the best ratings, by index.

    Before those without one come those with one, and among equals those with more examples, then
    the first.
    """

    def rank(candidate: int) -> tuple[float, int, int]:
        rating = ratings[candidate]
        examples = len(written.edits[candidate].examples)
        return (1.0 if rating is None else -rating, -examples, candidate)

    return tuple(sorted(sorted(range(len(written.edits)), key=rank)[:count]))
