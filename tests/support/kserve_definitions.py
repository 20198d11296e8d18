"""KServe's definitions of its kinds, from the folder that `$SEAL_TEST_CRDS` names."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path


def find_definitions(plurals: Sequence[str], unpack_to: Path) -> list[Path]:
    """Files of the kinds, as they lie there or in an archive.

    Raises:
        FileNotFoundError: the variable is not set, or the folder lacks one of them.
    """
    folder = os.environ.get("SEAL_TEST_CRDS")
    if not folder:
        raise FileNotFoundError("no KServe definitions: SEAL_TEST_CRDS names no folder")
    for archive in Path(folder).glob("*kserve*.tar.*"):
        with tarfile.open(archive) as packed:  # its filters are not in every Python 3.11
            for member in packed:
                if content := packed.extractfile(member):
                    (unpack_to / Path(member.name).name).write_bytes(content.read())
    found = []
    for plural in plurals:
        name = f"serving.kserve.io_{plural}.yaml"
        file = next((path for root in (Path(folder), unpack_to) for path in root.rglob(name)), None)
        if file is None:
            raise FileNotFoundError(f"no KServe definition of {plural} in {folder}")
        found.append(file)
    return found
