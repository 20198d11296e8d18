"""Documents of this machine: what a place stands for, how it is named, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from seal.client import Document, read_documents
from seal.client.calls import as_documents
from seal.client.transfers import AdapterFiles
from seal.errors import Internal, InvalidInput, NotFound, SealError
from seal.v1 import adaptation_pb2


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.md", "part/b.TXT", "part/deep/c.md", ".hidden/d.md", "part/.e.md", "f.bin"):
        path = tmp_path / "books" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "books"


def names(*places: str | Path) -> list[str]:
    return [document.name for document in read_documents(places)]


def test_a_directory_stands_for_the_documents_below_it_named_by_their_paths(books: Path) -> None:
    assert names("books") == ["a.md", "part/b.TXT", "part/deep/c.md"]


def test_a_glob_names_by_the_path_below_its_fixed_part(books: Path) -> None:
    assert names("books/**/*.md") == ["a.md", "part/deep/c.md"]
    assert names(books / "part" / "*" / "c.md") == ["deep/c.md"]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(books: Path) -> None:
    (found,) = read_documents(["books/f.bin"])
    assert (found.name, found.content) == ("f.bin", b"f.bin")


def test_every_file_is_taken_once(books: Path) -> None:
    assert names("books/a.md", "books", str(books / "a.md")) == [
        "a.md", "part/b.TXT", "part/deep/c.md",
    ]  # fmt: skip


def test_a_client_takes_every_file_once_too(books: Path) -> None:
    ready = Document(name="ready", content=b"Two words.")
    found = as_documents(["books/a.md", ready, "books", books / "a.md"])
    assert [document.name for document in found] == [
        "ready", "a.md", "part/b.TXT", "part/deep/c.md",
    ]  # fmt: skip


def test_a_file_with_wildcards_in_its_name_is_a_file(books: Path) -> None:
    (books / "what?.md").write_text("x")
    assert names("books/what?.md") == ["what?.md"]


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("nowhere.md", NotFound, "nowhere.md does not exist"),
        ("books/*.pdfx", NotFound, "matches no file"),
        ("empty", InvalidInput, "holds no document"),
        ("large.txt", InvalidInput, "the limit is"),
        ("/dev/zero", InvalidInput, "the limit is"),
        ("", InvalidInput, "an empty path"),
        ("loop.md", InvalidInput, "leads back to itself"),
        ("~nosuchuser/a.md", NotFound, "no such user"),
        ("no-\udcff.md", InvalidInput, "is no UTF-8"),
        ("deep", InvalidInput, r"deep.md would have 256 characters, the limit is 255"),
    ],
)
def test_what_is_not_there_or_too_large_is_refused(
    books: Path, place: str, kind: type[SealError], said: str
) -> None:
    (books.parent / "empty").mkdir()
    (books.parent / "loop.md").symlink_to("loop.md")
    (books.parent / "no-\udcff.md").write_text("x")
    deep = books.parent / "deep" / ("a" * 248)
    deep.mkdir(parents=True)
    (deep / "deep.md").write_text("x")
    with (books.parent / "large.txt").open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    with pytest.raises(kind, match=said) as refused:
        read_documents([place])
    assert refused.value.remedy


def test_two_files_of_one_name_are_refused_with_the_way_out(books: Path) -> None:
    (books / "other").mkdir()
    (books / "other" / "a.md").write_text("x")
    with pytest.raises(InvalidInput, match=r"would both be called a\.md"):
        read_documents(["books/a.md", "books/other/a.md"])
    assert len(names("books")) == 4


@pytest.mark.parametrize("name", ["../x", "a/b", "/", "", ".", "..", "{outside}/x"])
def test_a_server_names_no_file_outside_the_directory_of_the_download(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "down" / "a").mkdir(parents=True)
    name = name.format(outside=tmp_path)
    header = adaptation_pb2.DownloadAdapterResponse(file=adaptation_pb2.AdapterFile(name=name))
    with pytest.raises(Internal, match="sends a file named"):
        AdapterFiles(tmp_path / "down").take(header)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "down", tmp_path / "down" / "a"]
