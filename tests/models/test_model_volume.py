"""A directory of models that pods share: filled while others look, whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from model_workplace import Workplace, safetensors
from structlog.testing import capture_logs

from seal import kept_models
from seal.awaited_models import await_model
from seal.errors import Conflict, Exhausted, Internal, InvalidInput, NotFound
from seal.manifest import MANIFEST_FILE
from seal.model_copies import keep_model
from seal.model_files import IncompleteModel
from seal.models import ResolvedModel, resolve_model


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache is that of the workplace."""
    monkeypatch.setenv("SEAL_CACHE", str(tmp_path / "cache"))


def keep(source: str, volume: Path, *, force: bool = False) -> ResolvedModel:
    return keep_model(source, to=volume, force=force, progress=lambda *_: None)


def leftovers(volume: Path) -> list[Path]:
    return [path for path in volume.rglob("*") if path.name.startswith(".tmp-")]


def test_an_embedded_model_of_the_cache_is_copied_and_found_by_name_in_the_volume(
    workplace: Workplace, volume: Path
) -> None:
    workplace.give_wheel()
    mine = workplace.resolve()
    kept = keep("tiny-model", volume)
    assert workplace.conversions == 1, "it was copied, not made again"
    assert kept.path.is_relative_to(volume) and kept.sha256 == mine.sha256
    shutil.rmtree(workplace.cache)
    assert resolve_model("tiny-model", models_dir=volume, offline=True) == kept
    with pytest.raises(NotFound):
        resolve_model("tiny-model", offline=True)


def test_without_one_in_the_cache_it_is_made_in_the_volume_alone(
    workplace: Workplace, volume: Path
) -> None:
    workplace.give_wheel()
    kept = keep("tiny-model", volume)
    assert kept.path.is_relative_to(volume)
    assert not (workplace.cache / "models").exists()
    assert leftovers(volume) == []
    assert keep("tiny-model", volume) == kept
    assert workplace.conversions == 1


def test_a_user_without_a_home_needs_no_cache_beside_a_volume(
    workplace: Workplace, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.give_wheel()
    kept = keep("tiny-model", volume)

    def no_home(*_: object, **__: object) -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("SEAL_CACHE")
    monkeypatch.setattr("seal.files.user_cache_path", no_home)
    assert resolve_model("tiny-model", models_dir=volume, offline=True) == kept
    assert keep("tiny-model", volume) == kept


def test_a_damaged_model_of_a_volume_is_named_with_the_command_that_mends_it(
    workplace: Workplace, volume: Path
) -> None:
    workplace.give_wheel()
    kept = keep("tiny-model", volume)
    (kept.path / "tokenizer.json").write_text("{ }")
    with pytest.raises(Internal, match=r"tokenizer\.json") as caught:
        resolve_model("tiny-model", models_dir=volume)
    assert caught.value.remedy == f"run `seal models pull tiny-model --force --to {volume}`"
    assert keep("tiny-model", volume, force=True) == kept


@pytest.mark.parametrize(
    ("source", "place"), [("hf://org/model", "main"), ("org/model@refs/pr/1", "refs%2Fpr%2F1")]
)
def test_a_model_of_the_hub_is_found_in_the_volume_without_hub_or_cache(
    source: str,
    place: str,
    model_directory: Path,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (model_directory / "consolidated.safetensors").write_bytes(safetensors(5))
    (model_directory / "README.md").write_text("no part of a model")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(model_directory))
    online = resolve_model(source)
    kept = keep(source, volume)
    assert kept.path == volume / "hub" / "org" / "model" / place
    assert {file.name for file in kept.path.iterdir()} == {
        MANIFEST_FILE, "config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    assert (kept.name, kept.base) == (online.name, online.base)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub is asked")
    )
    assert resolve_model(source, models_dir=volume) == kept
    assert keep(source, volume) == kept


def test_offline_a_model_that_neither_volume_nor_hub_cache_has_is_said_of_both(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(NotFound, match=f"not in the hub's cache or in {volume}"):
        resolve_model("hf://org/model", models_dir=volume, offline=True)


def test_a_directory_is_copied_under_its_name_and_never_over_another_model(
    model_directory: Path, volume: Path, tmp_path: Path
) -> None:
    kept = keep(str(model_directory), volume)
    assert kept.path == volume / "my-model"
    assert keep(str(kept.path), volume) == kept, "a model of the volume stays where it is"
    other = tmp_path / "elsewhere" / "my-model"
    shutil.copytree(model_directory, other)
    (other / "model.safetensors").write_bytes(safetensors(9))
    with pytest.raises(Conflict, match="my-model holds another model than") as caught:
        keep(str(other), volume)
    assert "--force" in caught.value.remedy
    assert resolve_model(str(volume / "my-model")).sha256 == kept.sha256
    assert keep(str(other), volume, force=True).sha256 == resolve_model(str(other)).sha256


@pytest.mark.parametrize("flushes", range(4))
def test_a_volume_that_fills_up_shows_no_model_and_keeps_nothing(
    model_directory: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    real, counted = os.fsync, count()

    def fsync(descriptor: int) -> None:
        if next(counted) >= flushes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("seal.files.os.fsync", fsync)
        with pytest.raises(Exhausted, match="no space left to write"):
            keep(str(model_directory), volume)
    assert leftovers(volume) == [] and not (volume / "my-model").exists()


def test_who_looks_while_a_volume_is_filled_sees_a_whole_model_or_none(
    model_directory: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader looks before and after every file of the copy."""
    seen: list[str] = []
    copy = kept_models.write_directory

    def look() -> None:
        try:
            resolve_model(str(volume / "my-model"))
            seen.append("whole")
        except NotFound:
            seen.append("none")

    def slowly(source: Path, names: tuple[str, ...], target: Path) -> object:
        look()
        written = copy(source, names, target)
        look()
        return written

    monkeypatch.setattr(kept_models, "write_directory", slowly)
    keep(str(model_directory), volume)
    look()
    keep(str(model_directory), volume, force=True)
    assert seen == ["none", "none", "whole", "whole", "whole"]


def test_two_pulls_at_once_copy_once(
    workplace: Workplace, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.give_wheel()
    workplace.resolve()
    copies: list[Path] = []
    copy, both = kept_models.write_directory, threading.Barrier(3, timeout=10)

    def counted(source: Path, names: tuple[str, ...], target: Path) -> object:
        copies.append(target)
        return copy(source, names, target)

    def pull() -> None:
        both.wait()
        keep("tiny-model", volume)

    monkeypatch.setattr(kept_models, "write_directory", counted)
    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait()
    for thread in threads:
        thread.join(timeout=20)
    assert len(copies) == 1
    assert resolve_model("tiny-model", models_dir=volume, offline=True).path.is_dir()


# A process that needs a model which is still on its way


class Clock:
    """Seconds that pass in `sleep` alone; something may happen after so many."""

    def __init__(self, after: float = float("inf"), happen: Callable[[], object] = int) -> None:
        self.seconds, self._after, self._happen = 0.0, after, happen

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.seconds >= self._after:
            self._after = float("inf")
            self._happen()


def wait(source: str, clock: Clock, volume: Path | None = None, seconds: float = 60.0):
    return await_model(
        source,
        models_dir=volume,
        offline=True,
        wait_seconds=seconds,
        sleep=clock.sleep,
        clock=clock,
    )


@pytest.fixture
def said() -> Iterator[list[dict]]:
    with capture_logs() as logs:
        yield logs


def test_a_model_that_comes_while_it_is_waited_for_is_taken_and_the_wait_is_said_every_10_s(
    workplace: Workplace, volume: Path, said: list[dict]
) -> None:
    workplace.give_wheel()
    workplace.resolve()
    shutil.rmtree(workplace.cache / "downloads")
    clock = Clock(25.0, lambda: keep("tiny-model", volume))
    assert wait("tiny-model", clock, volume).path.is_relative_to(volume)
    assert clock.seconds == 25.0
    lines = [line for line in said if line["event"] == "waiting for the model"]
    assert [line["waited_seconds"] for line in lines] == [0, 10, 20]
    assert all(str(volume) in line["reason"] for line in lines)


def test_a_directory_that_is_copied_file_by_file_is_waited_for_until_it_is_whole(
    model_directory: Path,
) -> None:
    weights = (model_directory / "model.safetensors").read_bytes()
    (model_directory / "model.safetensors").write_bytes(weights[:-3])
    clock = Clock(3.0, lambda: (model_directory / "model.safetensors").write_bytes(weights))
    assert wait(str(model_directory), clock).path == model_directory
    assert clock.seconds == 3.0


def test_after_the_wait_the_reason_stands_and_without_one_nothing_is_waited_for(
    model_directory: Path, said: list[dict]
) -> None:
    (model_directory / "config.json").unlink()
    for seconds in (60.0, 0.0):
        clock = Clock()
        with pytest.raises(IncompleteModel, match=r"it has no config\.json"):
            wait(str(model_directory), clock, seconds=seconds)
        assert clock.seconds == seconds
    assert len([line for line in said if line["event"] == "waiting for the model"]) == 6


def test_what_no_waiting_changes_is_refused_at_once(model_directory: Path) -> None:
    (model_directory / "tokenizer_config.json").write_text('{"auto_map": {}}')
    clock = Clock()
    with pytest.raises(InvalidInput, match="code of its own"):
        wait(str(model_directory), clock)
    with pytest.raises(InvalidInput, match="names no repository"):
        wait("hf://nothing", clock)
    assert clock.seconds == 0.0
