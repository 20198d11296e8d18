"""Adapters for vLLM: a name, a number and a path of their own, there as long as somebody asks."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_vllm import random_adapter, tiny_outline

from seal.engine import ModelOutline, load_adapter
from seal.engine.bank import parameters_per_rank
from seal.errors import Exhausted
from seal.vllm import adapters
from seal.vllm.adapters import AdapterFiles, place_for


@pytest.fixture(scope="module")
def outline(tmp_path_factory: pytest.TempPathFactory) -> ModelOutline:
    return tiny_outline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[AdapterFiles]:
    files = AdapterFiles(tmp_path, kept=1, dtype="float32")
    yield files
    files.close()


def test_no_two_adapters_share_a_name_a_number_or_a_path(
    files: AdapterFiles, outline: ModelOutline
) -> None:
    some = [random_adapter(outline, seed=seed) for seed in range(5)]
    placed = []
    for one in [*some, *some]:  # those that come back have been dropped meanwhile
        with files.hold(None, one) as there:
            assert there is not None
            placed.append(there)
    for field in ("name", "number", "path"):
        assert len({getattr(one, field) for one in placed}) == 10
    assert min(one.number for one in placed) == 1


def test_two_processes_never_use_the_same_path(tmp_path: Path) -> None:
    both = [AdapterFiles(tmp_path, kept=1, dtype="float32") for _ in range(2)]
    assert both[0].directory != both[1].directory


def test_what_a_dead_process_has_left_is_removed_and_what_a_living_one_uses_stays(
    tmp_path: Path,
) -> None:
    dead, foreign = tmp_path / "seal-adapters-dead", tmp_path / "models"
    for directory in (dead / "1", foreign):
        directory.mkdir(parents=True)
        (directory / "adapter_model.safetensors").write_bytes(b"weights")
    (dead / adapters.LOCK).touch()
    living = AdapterFiles(tmp_path, kept=1, dtype="float32")
    own = AdapterFiles(tmp_path, kept=1, dtype="float32")
    assert set(tmp_path.iterdir()) == {foreign, living.directory, own.directory}
    living.close()
    assert set(tmp_path.iterdir()) == {foreign, own.directory}


def test_a_directory_is_let_go_by_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from seal.vllm.adapters import AdapterFiles;"
        "AdapterFiles(pathlib.Path(sys.argv[1]), kept=1, dtype='float32'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    own = AdapterFiles(tmp_path, kept=1, dtype="float32")
    assert left != own.directory and list(tmp_path.iterdir()) == [own.directory]


def test_one_adapter_is_written_once_for_all_that_use_it(
    files: AdapterFiles, outline: ModelOutline
) -> None:
    adapter = random_adapter(outline, seed=1)
    with files.hold(None, adapter) as first, files.hold(None, adapter) as second:
        assert first == second
    with files.hold(None, adapter) as third:
        assert third == first


def test_an_adapter_stays_while_it_is_used_and_the_newest_after(
    files: AdapterFiles, outline: ModelOutline
) -> None:
    used, old, new = (random_adapter(outline, seed=seed) for seed in range(3))
    with files.hold(None, used) as at_work:
        with files.hold(None, old) as former:
            pass
        with files.hold(None, new) as latter:
            pass
        assert at_work and former and latter
        assert at_work.path.is_dir() and latter.path.is_dir() and not former.path.exists()
    assert not latter.path.exists() and at_work.path.is_dir()
    files.close()
    assert not files.directory.exists()


def test_an_adapter_on_a_policy_is_one_lora_with_the_sum_of_both_updates(
    files: AdapterFiles, outline: ModelOutline
) -> None:
    policy = random_adapter(outline, seed=1, rank=3, targets=("q_proj", "up_proj"))
    adapter = random_adapter(outline, seed=2, rank=2, targets=("q_proj", "v_proj"))
    with files.hold(policy, adapter) as placed:
        assert placed is not None
        one = load_adapter(placed.path)
    assert one.rank == 5
    for layer in {*policy.pairs, *adapter.pairs}:
        wanted = sum(
            part.scale * part.pairs[layer].b @ part.pairs[layer].a
            for part in (policy, adapter)
            if layer in part.pairs
        )
        pair = one.pairs[layer]
        torch.testing.assert_close(one.scale * pair.b @ pair.a, wanted)


def test_the_base_alone_needs_no_lora(files: AdapterFiles) -> None:
    with files.hold(None, None) as placed:
        assert placed is None


def test_where_a_lora_must_be_given_the_base_has_one_that_changes_nothing(
    tmp_path: Path, outline: ModelOutline
) -> None:
    files = AdapterFiles(tmp_path, kept=1, dtype="float32", neutral=outline.neutral_adapter())
    with files.hold(None, None) as placed, files.hold(None, None) as again:
        assert placed is not None and placed == again
        assert load_adapter(placed.path).changes_nothing()
    adapter = random_adapter(outline, seed=1)
    assert len(files.needed(None, None)) == 1
    assert len(files.needed(None, adapter)) == 2  # the proof asks without it


def test_where_none_need_be_given_the_base_counts_as_no_lora(
    files: AdapterFiles, outline: ModelOutline
) -> None:
    adapter, policy = random_adapter(outline, seed=1), random_adapter(outline, seed=2)
    assert files.needed(None, None) == set()
    assert len(files.needed(None, adapter)) == 1
    assert len(files.needed(policy, adapter)) == 2


def test_adapters_lie_in_memory_where_that_has_room_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's has 64 MB, where one adapter of a model of 7B would wait for ever."""
    monkeypatch.setattr(adapters, "MEMORY", tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert place_for(free // 2) == tmp_path
    assert place_for(2 * free) == Path(tempfile.gettempdir())
    monkeypatch.setattr(adapters, "MEMORY", tmp_path / "none")
    assert place_for(1) == Path(tempfile.gettempdir())


def test_the_room_of_an_adapter_is_known_before_there_is_one(outline: ModelOutline) -> None:
    adapter = random_adapter(outline, seed=1)
    numbers = sum(pair.a.numel() + pair.b.numel() for pair in adapter.pairs.values())
    per_rank = parameters_per_rank(outline.layers, adapter.target_modules)
    assert per_rank * adapter.rank == numbers


def test_a_directory_without_room_is_told_as_full_and_nothing_is_left_in_it(
    files: AdapterFiles, outline: ModelOutline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(adapter: object, directory: Path) -> None:
        directory.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(adapters, "save_adapter", full)
    with (
        pytest.raises(Exhausted, match="no room"),
        files.hold(None, random_adapter(outline, seed=1)),
    ):
        pass
    assert [file.name for file in files.directory.iterdir()] == [adapters.LOCK]


def test_an_adapter_with_a_zero_factor_in_every_layer_changes_nothing(
    outline: ModelOutline,
) -> None:
    assert random_adapter(outline, seed=1, scale=0.0).changes_nothing()
    assert not random_adapter(outline, seed=1).changes_nothing()
