"""docs/api.md is what the protos say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from seal.api_docs import FILES, api_page, read_protos

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files() -> tuple[FileDescriptorProto, ...]:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    return read_protos(ROOT / "proto")


def test_the_page_is_what_the_protos_say(files: tuple[FileDescriptorProto, ...]) -> None:
    shown = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert shown == api_page(files), "run `make api` and commit what it changes"


def test_every_proto_is_on_the_page() -> None:
    assert sorted(FILES) == sorted(path.stem for path in (ROOT / "proto/seal/v1").glob("*.proto"))


def test_every_method_and_every_message_of_several_fields_is_explained(
    files: tuple[FileDescriptorProto, ...],
) -> None:
    page = api_page(files)
    for file in files:
        for service in file.service:
            for method in service.method:
                (row,) = re.findall(rf"(?m)^\| {method.name} \|.*", page)
                assert not row.endswith("|  |"), row
        for message in file.message_type:
            assert f"\n### {message.name}\n" in page


def test_every_link_of_the_page_leads_to_a_heading_of_it(
    files: tuple[FileDescriptorProto, ...],
) -> None:
    page = api_page(files)
    headings = {title.lower() for title in re.findall(r"(?m)^#+ (\w+)$", page)}
    links = set(re.findall(r"\]\(#([\w-]+)\)", page))
    assert links and links <= headings
