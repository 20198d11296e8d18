"""From trained weights in memory to an adapter in the artifact store."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from seal.files import file_errors
from seal.records import AdapterReference
from seal.runs.store import adapters_path
from trainer_svc.card import CARD_FILE

if TYPE_CHECKING:
    from seal.artifacts import ArtifactStore
    from seal.engine import Adapter


def publish_adapter(
    store: ArtifactStore,
    run: str,
    adapter: Adapter,
    save: Callable[[Adapter, Path], None],
    *,
    card: str,
) -> AdapterReference:
    """Write an adapter with its card to a scratch directory with `save` and publish that.

    Raises Exhausted naming the disk that is full.
    """
    with (
        file_errors(tempfile.gettempdir()),
        tempfile.TemporaryDirectory(prefix="seal-adapter-") as scratch,
    ):
        try:
            save(adapter, Path(scratch))
        except SafetensorError as error:
            raise OSError(_error_number(error), str(error)) from error
        (Path(scratch) / CARD_FILE).write_text(card, encoding="utf-8")
        return store.publish_directory(Path(scratch), adapters_path(run))


def _error_number(error: SafetensorError) -> int:
    """The errno that safetensors puts into its message, EIO without one.

    The message ends, for example, in "(os error 28)".
    """
    found = re.search(r"os error (\d+)|code: (\d+)", str(error))
    return int(found[1] or found[2]) if found else errno.EIO
