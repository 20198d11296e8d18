"""A whole run on a real S3: what it decides and makes is what it does on a disk."""

from __future__ import annotations

from pathlib import Path

from controller_harness import IMPATIENT, RUN, small_spec
from fake_services import Fakes, serve_fakes

from controller_svc.core import Phase
from controller_svc.local.world import run_local
from seal.artifacts import ArtifactStore
from seal.records import SelectionRecord
from seal.resources import RestEMRun
from seal.runs.store import selection_path


async def test_a_run_on_s3_selects_and_makes_what_it_does_on_a_disk(
    s3_root: str, tmp_path: Path
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    ended = []
    for root in (str(tmp_path / "artifacts"), s3_root):
        async with serve_fakes(Fakes()) as addresses:
            status = await run_local(
                RestEMRun.of(RUN, spec), root=root, services=addresses, settings=IMPATIENT
            )
        store = ArtifactStore(root)
        selection = store.read_json(selection_path(RUN, 1), SelectionRecord)
        assert status.phase is Phase.COMPLETE
        assert selection.kept
        ended.append((selection.sha256, status.policies, sorted(store.list(f"{RUN}/stages"))))
    assert ended[0] == ended[1]
