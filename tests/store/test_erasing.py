"""What is erased of a run, on every kind of place."""

from __future__ import annotations

from pathlib import Path

from controller_svc.erasing import erase_run
from seal.artifacts import ArtifactStore


def test_an_erased_run_leaves_nothing_but_the_adapters_to_be_kept(
    store: ArtifactStore, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "adapter_config.json").write_text("{}")
    kept = store.publish_directory(weights, "run/adapters")
    (weights / "adapter_config.json").write_text('{"r": 1}')
    store.publish_directory(weights, "run/adapters")
    for path in ("run/status.json", "run/stages/r1-rollout/shard-0000/edits/a.json", "runs/a"):
        store.write_bytes(path, b"{}")
    for _ in range(2):
        erase_run(store, "run", kept=[kept])
        assert {path.rpartition("/")[0] for path in store.list()} == {kept.path, "runs"}
        with store.fetch_directory(kept):
            pass
    erase_run(store, "run", kept=[])
    assert store.list() == ("runs/a",)


def test_an_erased_run_leaves_no_directories(local: ArtifactStore, tmp_path: Path) -> None:
    local.write_bytes("run/stages/r1-rollout/shard-0000/edits/a.json", b"{}")
    local.write_bytes("run/records/r.json", b"{}")
    (tmp_path / "store/run/trainings").mkdir()
    local.remove_empty_directories("run")
    assert not (tmp_path / "store/run/trainings").exists()
    assert len(local.list("run")) == 2
    erase_run(local, "run", kept=[])
    assert list((tmp_path / "store").iterdir()) == []
    erase_run(local, "run", kept=[])
