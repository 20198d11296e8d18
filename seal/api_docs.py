"""docs/api.md: the gRPC contract as a page, from the protos and their comments.

`make api` writes it; a test keeps it current.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

HEAD = """# The gRPC contract

Made from the comments in `proto/seal/v1` by `make api`; all of it is the package `seal.v1`.
[adapt.md](adapt.md) says what `AdaptationService` is for, and [grpcurl.md](grpcurl.md) shows it
from a shell; the other services are in [services.md](services.md).
"""
FILES = ("adaptation", "generator", "trainer", "evaluator", "common")
"""In the order of the page."""
# Numbers of fields of descriptor.proto, of which a comment's path is made
_MESSAGE, _ENUM, _SERVICE, _FIELD, _VALUE, _METHOD = 4, 5, 6, 2, 2, 2


def api_page(files: Sequence[FileDescriptorProto]) -> str:
    """The page as Markdown; the files need their comments (`read_protos`)."""
    blocks = [HEAD]
    for file in files:
        blocks += _File(file).blocks()
    return "\n".join(blocks)


def read_protos(root: Path) -> tuple[FileDescriptorProto, ...]:
    """The protos below a directory with their comments; needs grpcio-tools."""
    from grpc_tools import protoc

    names = [f"seal/v1/{name}.proto" for name in FILES]
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        out = Path(directory) / "protos"
        code = protoc.main(
            [
                "protoc",
                f"-I{root}",
                f"-I{Path(protoc.__file__).parent / '_proto'}",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                *names,
            ]
        )
        if code:
            sys.exit(code)
        found = {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}
    return tuple(found[name] for name in names)


class _File:
    """One proto as blocks of Markdown."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(at.path): " ".join(at.leading_comments.split())
            for at in file.source_code_info.location
            if at.leading_comments
        }

    def blocks(self) -> Iterator[str]:
        """Services first, then messages and enums, each in the order of the file."""
        for number, service in enumerate(self._file.service):
            yield self._service(service, (_SERVICE, number))
        yield f"## proto/{self._file.name}\n"
        for number, message in enumerate(self._file.message_type):
            yield self._message(message, (_MESSAGE, number))
        for number, enum in enumerate(self._file.enum_type):
            yield self._enum(enum, (_ENUM, number))

    def _said(self, path: tuple[int, ...]) -> str:
        """A comment that may stand in a table."""
        return self._comments.get(path, "").replace("|", r"\|")

    def _service(self, service: ServiceDescriptorProto, path: tuple[int, ...]) -> str:
        rows = [
            f"| {method.name} | {_taken(method.input_type, method.client_streaming)} | "
            f"{_taken(method.output_type, method.server_streaming)} | "
            f"{self._said((*path, _METHOD, number))} |"
            for number, method in enumerate(service.method)
        ]
        return _section(
            f"## {service.name}",
            self._said(path),
            ["| method | takes | gives | |", "|---|---|---|---|", *rows],
        )

    def _message(self, message: DescriptorProto, path: tuple[int, ...]) -> str:
        maps = {
            entry.name: f"map<{_type(entry.field[0])}, {_type(entry.field[1])}>"
            for entry in message.nested_type
            if entry.options.map_entry
        }
        rows = [
            f"| {field.name} | {field.number} | {self._field_type(field, message, maps)} | "
            f"{self._said((*path, _FIELD, number))} |"
            for number, field in enumerate(message.field)
        ]
        head = ["| field | number | type | |", "|---|---|---|---|"]
        return _section(
            f"### {message.name}", self._said(path), [*head, *rows] if rows else ["No fields."]
        )

    @staticmethod
    def _field_type(
        field: FieldDescriptorProto, message: DescriptorProto, maps: dict[str, str]
    ) -> str:
        name = field.type_name.rpartition(".")[2]
        if name in maps:
            return maps[name]
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {_type(field)}"
        if field.proto3_optional:
            return f"optional {_type(field)}"
        if field.HasField("oneof_index"):
            return f"{_type(field)}, one of `{message.oneof_decl[field.oneof_index].name}`"
        return _type(field)

    def _enum(self, enum: EnumDescriptorProto, path: tuple[int, ...]) -> str:
        rows = [
            f"| {value.name} | {value.number} | {self._said((*path, _VALUE, number))} |"
            for number, value in enumerate(enum.value)
        ]
        return _section(
            f"### {enum.name}", self._said(path), ["| value | number | |", "|---|---|---|", *rows]
        )


def _section(title: str, said: str, table: Sequence[str]) -> str:
    return "\n".join((title, "", *([said, ""] if said else []), *table, ""))


def _taken(name: str, streaming: bool) -> str:
    return f"{'stream of ' if streaming else ''}{_linked(name)}"


def _type(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _linked(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _linked(name: str) -> str:
    """A message or an enum with a link to where it stands on the page."""
    short = name.removeprefix(".seal.v1.")
    return name.removeprefix(".") if short == name else f"[{short}](#{short.lower()})"


if __name__ == "__main__":
    sys.stdout.write(api_page(read_protos(Path("proto"))))
