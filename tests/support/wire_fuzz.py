"""Messages of any kind from their descriptors: what a caller may send, sensible or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

MAX_ENTRIES = 3
MAX_DEPTH = 4
_TEXTS = st.one_of(
    st.sampled_from(["", "a", "default", "a.txt", "a.md", "q_proj", "linear", "../up", "0" * 64]),
    st.text(max_size=20),
    st.sampled_from(["x" * 300, "\x00", "\u202e", "\ud7ff\ue000", "<|im_end|>"]),
)
_BYTES = st.one_of(
    st.binary(max_size=30), st.sampled_from([b"two words", b"# Head\n\nSome more text.", b"{}"])
)
_FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1e308, float("nan"), float("inf")]), st.floats()
)
_BOUNDS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


@dataclass(frozen=True)
class Method:
    """One RPC, as any client can call it."""

    path: str
    input: type[Message]
    output: type[Message]
    takes_stream: bool
    gives_stream: bool


def methods_of(*files: FileDescriptor) -> list[Method]:
    """All RPCs of all services of these files."""
    return [
        Method(
            path=f"/{service.full_name}/{method.name}",
            input=GetMessageClass(method.input_type),
            output=GetMessageClass(method.output_type),
            takes_stream=method.client_streaming,
            gives_stream=method.server_streaming,
        )
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def messages(kind: type[Message], depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a kind, each field of which may be there or not."""
    descriptor: Descriptor = kind.DESCRIPTOR
    fields = {
        field.name: _field(field, depth)
        for field in descriptor.fields
        if field.message_type is None or depth < MAX_DEPTH
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _made(kind, values))


def _made(kind: type[Message], values: dict[str, Any]) -> Message:
    message = kind()
    for name, value in values.items():
        field = kind.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target.update(value)
        elif isinstance(value, list):
            target.extend(value)
        elif isinstance(value, Message):
            target.CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return st.dictionaries(
            _value(entry["key"], depth), _value(entry["value"], depth), max_size=MAX_ENTRIES
        )
    value = _value(field, depth)
    return st.lists(value, max_size=MAX_ENTRIES) if field.is_repeated else value


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(GetMessageClass(field.message_type), depth + 1)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.one_of(st.integers(0, len(field.enum_type.values)), st.integers(-5, 1000))
    if field.type == FieldDescriptor.TYPE_STRING:
        return _TEXTS
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BYTES
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return _FLOATS
    low, high = _BOUNDS[field.type]
    return st.one_of(st.integers(low, high), st.integers(max(low, -2), 300))
