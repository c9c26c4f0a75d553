"""ONNX files without the package `onnx`, which no device has: just enough of protobuf's wire format.

A message is a sequence of fields (number, wire type, value). What this module does not know it hands on untouched.
Source: protobuf.dev/programming-guides/encoding, and the numbers in onnx.proto.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploy.errors import UsageError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
FLOAT, UINT8, INT8, INT32, INT64, FLOAT16 = 1, 2, 3, 6, 7, 10
DTYPES: dict[int, np.dtype[np.generic]] = {
    FLOAT: np.dtype("<f4"),
    UINT8: np.dtype("u1"),
    INT8: np.dtype("i1"),
    INT32: np.dtype("<i4"),
    INT64: np.dtype("<i8"),
    FLOAT16: np.dtype("<f2"),
}
_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 7, 1, 5, 11, 12, 13


@dataclass(frozen=True)
class Field:
    """`value`: int of a varint, bytes of all else. `kind` is the wire type."""

    number: int
    kind: int
    value: int | bytes | memoryview

    @property
    def data(self) -> bytes | memoryview:
        if isinstance(self.value, int):
            raise UsageError(f"graph: field {self.number} must be a message (got a number)")
        return self.value


@dataclass(frozen=True)
class Tensor:
    """An initializer. `raw`: its values as little-endian bytes, empty where the file has them in another way."""

    name: str
    type: int
    dims: tuple[int, ...]
    raw: bytes | memoryview
    external: tuple[str, int] | None = None  # file beside the graph, and how many bytes of it: in place of `raw`

    @property
    def array(self) -> NDArray[np.generic]:
        """Raises UsageError where the values are not plain bytes of a known type."""
        known = DTYPES.get(self.type)
        if known is None or len(self.raw) != known.itemsize * int(np.prod(self.dims, dtype=np.int64)):
            raise UsageError(f"{self.name}: its values are not stored as plain bytes")
        return np.frombuffer(self.raw, known).reshape(self.dims)

    def encode(self) -> list[Field]:
        fields = [number(1, dim) for dim in self.dims] + [number(2, self.type), text(8, self.name)]
        if self.external is None:
            return [*fields, Field(9, _BYTES, self.raw)]
        where, length = self.external
        entries = {"location": where, "offset": "0", "length": str(length)}
        fields += [message(13, [text(1, key), text(2, value)]) for key, value in entries.items()]
        return [*fields, number(14, 1)]


def parse(data: bytes | memoryview) -> Iterator[Field]:
    """The fields of a message, in order. Raises UsageError where it is cut short or no protobuf."""
    view, place = memoryview(data), 0
    while place < len(view):
        tag, place = _varint(view, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(view, place)
            yield Field(tag >> 3, kind, value)
            continue
        if kind == _BYTES:
            size, place = _varint(view, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise UsageError(f"graph: not an ONNX file (wire type {kind})")
        if place + size > len(view):
            raise UsageError("graph: the file is cut short")
        yield Field(tag >> 3, kind, view[place : place + size])
        place += size


def encode(fields: Iterable[Field]) -> bytes:
    """The bytes of a message."""
    parts: list[bytes | memoryview] = []
    for field in fields:
        parts.append(_to_varint(field.number << 3 | field.kind))
        if isinstance(field.value, int):
            parts.append(_to_varint(field.value))
        else:
            if field.kind == _BYTES:
                parts.append(_to_varint(len(field.value)))
            parts.append(field.value)
    return b"".join(parts)


def number(field: int, value: int) -> Field:
    return Field(field, _VARINT, value)


def text(field: int, value: str) -> Field:
    return Field(field, _BYTES, value.encode())


def message(field: int, inside: Iterable[Field]) -> Field:
    return Field(field, _BYTES, encode(inside))


def tensors(model: bytes) -> Iterator[Tensor]:
    """The graph's initializers, in order."""
    for graph in (field for field in parse(model) if field.number == _GRAPH):
        for field in parse(graph.data):
            if field.number == _INITIALIZER:
                yield _tensor(field)


def with_tensors(model: bytes, changed: Sequence[Tensor]) -> bytes:
    """The same model, initializers replaced by those of `changed` with their names. Recorded shapes of intermediate
    values, which may no longer hold, are dropped: ONNX Runtime infers its own."""
    by_name = {tensor.name: tensor for tensor in changed}

    def graph(fields: Iterable[Field]) -> Iterator[Field]:
        for field in fields:
            found = _tensor(field) if field.number == _INITIALIZER else None
            if found and found.name in by_name:
                yield message(_INITIALIZER, by_name[found.name].encode())
            elif field.number != _VALUE_INFO:
                yield field

    return encode(
        message(_GRAPH, graph(parse(field.data))) if field.number == _GRAPH else field for field in parse(model)
    )


Value = tuple[str, int, Sequence[int]]
"""Name, type and dims of what goes in or comes out."""


def one_node(op: str, inputs: Sequence[Value], weights: Sequence[Tensor], output: Value) -> bytes:
    """A model of one node, which is given `inputs` and then `weights`."""
    node = [*(text(1, name) for name, _, _ in inputs), *(text(1, weight.name) for weight in weights)]
    node += [text(2, output[0]), text(4, op)]
    graph = [message(_NODE, node), text(2, op)]
    graph += [message(_INITIALIZER, weight.encode()) for weight in weights]
    graph += [message(_INPUT, _value(*value)) for value in inputs]
    graph.append(message(_OUTPUT, _value(*output)))
    return encode([number(1, 10), message(8, [text(1, ""), number(2, 20)]), message(_GRAPH, graph)])


def _value(name: str, kind: int, dims: Sequence[int]) -> list[Field]:
    shape = [message(1, [number(1, dim)]) for dim in dims]
    return [text(1, name), message(2, [message(1, [number(1, kind), message(2, shape)])])]


def _tensor(field: Field) -> Tensor:
    found = Tensor("", 0, (), b"")
    for part in parse(field.data):
        if part.number == 1:
            dims = (part.value,) if isinstance(part.value, int) else tuple(_packed(part.value))
            found = replace(found, dims=(*found.dims, *dims))
        elif part.number == 2 and isinstance(part.value, int):
            found = replace(found, type=part.value)
        elif part.number == 8:
            found = replace(found, name=bytes(part.data).decode())
        elif part.number == 9:
            found = replace(found, raw=part.data)
    return found


def _packed(data: bytes | memoryview) -> Iterator[int]:
    view, place = memoryview(data), 0
    while place < len(view):
        value, place = _varint(view, place)
        yield value


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(view) and shift < 70:
        byte = view[place]
        place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, place
    raise UsageError("graph: the file is cut short")


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
