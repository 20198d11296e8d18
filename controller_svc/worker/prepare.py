"""The first stage: read the data, check them, and pin the run to them.

What can be known before the first costly step is refused here, by field and remedy. What was read
is written beside the run with its digest; from then on a data file that changes changes nothing.
"""

from __future__ import annotations

from itertools import chain

import structlog

from controller_svc.worker.store import (
    in_thread,
    pin,
    write_contexts,
)
from seal.artifacts import ArtifactStore
from seal.datasets import load_contexts
from seal.domains.base import Context
from seal.records import PreparedRecord
from seal.restem.leakage import check_ids, check_leakage
from seal.settings import RunSpec

log = structlog.get_logger(__name__)


def load_data(spec: RunSpec) -> dict[str, tuple[Context, ...]]:
    """The contexts of a run by name.

    Raises:
        InvalidInput: a bad row, an empty file, a passage on both the training and the validation
            side, or two passages under one id.
        NotFound: there is no such file.

    """
    data = spec.data
    contexts = {
        "train": load_contexts(data.train) if spec.rounds else (),
        "validation": load_contexts(data.validation, limit=data.validation_contexts),
        "retained": load_contexts(data.retained) if data.retained else (),
    }
    check_leakage(contexts["train"], contexts["validation"])
    check_ids(chain.from_iterable(contexts.values()), where="the data")
    return contexts


async def prepare(run: str, *, spec: RunSpec, store: ArtifactStore) -> PreparedRecord:
    """Pin a run's data; what an earlier attempt has pinned stays.

    Raises:
        InvalidInput: as `load_data`.
        NotFound: as `load_data`.

    """
    contexts = await in_thread(load_data, spec)
    digests = {
        name: await write_contexts(store, run, name, members) for name, members in contexts.items()
    }
    prepared = await pin(
        store,
        run,
        PreparedRecord(
            contexts_sha256=digests,
            contexts={name: len(members) for name, members in contexts.items()},
        ),
    )
    log.info("data pinned", run=run, **prepared.contexts)
    return prepared
