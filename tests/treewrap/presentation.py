"""A reader and writer of the TLS presentation language: structs are what a document says they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

TOKEN = re.compile(r'"[^"]*"|0x[0-9a-fA-F]+|\w+|<V>|[][{}();:,=]')
INTEGERS = {"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8}
Lengths = Mapping[str, Callable[[dict[str, Any]], int]]
"""How long a field is whose length is given in words, from the fields around it and before it."""


class Field:
    """One field: type, name, and an array's length, "<V>", or nothing."""

    def __init__(self, kind: str, name: str, length: str, constant: bytes | None) -> None:
        self.kind, self.name, self.length, self.constant = kind, name, length, constant


class Select:
    """Fields that depend on an enum before them."""

    def __init__(self, on: str, cases: dict[str, list[Field | Select]]) -> None:
        self.on, self.cases = on, cases


class Language:
    """The structs and enums of a document."""

    def __init__(self, text: str, lengths: Lengths) -> None:
        self.structs: dict[str, list[Field | Select]] = {}
        self.enums: dict[str, tuple[int, dict[int, str]]] = {}
        self._lengths = lengths
        for block in re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            self._parse_block(re.sub(r"/\*.*?\*/", "", block))

    def _parse_block(self, block: str) -> None:
        for start in re.finditer(r"^(struct|enum) \{", block, re.MULTILINE):
            tokens = TOKEN.findall(block[start.end() :])
            if start[1] == "enum":
                self._parse_enum(tokens)
            else:
                fields = self._fields(tokens)
                self.structs[tokens.pop(0)] = fields

    def _parse_enum(self, tokens: list[str]) -> None:
        end = tokens.index("}")
        numbers = re.findall(r"(\w+) \( (\w+) \)", " ".join(tokens[:end]))
        highest = int(tokens[tokens.index("(", end - 4) + 1])
        size = (highest.bit_length() + 7) // 8
        self.enums[tokens[end + 1]] = size, {int(number, 0): name for name, number in numbers}

    def _fields(self, tokens: list[str]) -> list[Field | Select]:
        fields: list[Field | Select] = []
        while tokens[0] not in ("}", "case"):
            if tokens[0] == "select":
                on = tokens[2]
                del tokens[:5]
                fields.append(Select(on, self._cases(tokens)))
                assert tokens.pop(0) == ";"
                continue
            kind, name = tokens.pop(0), tokens.pop(0)
            length, constant = "", None
            if tokens[0] == "<V>":
                length = tokens.pop(0)
            elif tokens[0] == "[":
                length = tokens[1]
                del tokens[:3]
            if tokens[0] == "=":
                constant = tokens[1].strip('"').encode()
                del tokens[:2]
            assert tokens.pop(0) == ";", (kind, name, tokens[:5])
            fields.append(Field(kind, name, length, constant))
        if tokens[0] == "}":
            tokens.pop(0)
        return fields

    def _cases(self, tokens: list[str]) -> dict[str, list[Field | Select]]:
        cases: dict[str, list[Field | Select]] = {}
        while True:
            assert tokens.pop(0) == "case"
            name = tokens.pop(0)
            assert tokens.pop(0) == ":"
            last = "case" not in tokens[: tokens.index("}")]
            cases[name] = self._fields(tokens)
            if last:
                return cases

    # --- bytes to values and back --------------------------------------------------------------------

    def decode(self, kind: str, content: bytes, **around: Any) -> Any:
        """Read one struct, which must be all there is."""
        value, rest = self._read(kind, content, around)
        assert not rest, f"{kind}: {len(rest)} bytes left"
        return value

    def _read(self, kind: str, content: bytes, around: dict[str, Any]) -> tuple[Any, bytes]:
        if kind in INTEGERS:
            size = INTEGERS[kind]
            assert len(content) >= size, kind
            return int.from_bytes(content[:size], "big"), content[size:]
        if kind in self.enums:
            size, names = self.enums[kind]
            return names[int.from_bytes(content[:size], "big")], content[size:]
        return self._read_fields(self.structs[kind], content, around)

    def _read_fields(
        self, fields: list[Field | Select], content: bytes, around: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        found: dict[str, Any] = {}
        for field in fields:
            if isinstance(field, Select):
                inner, content = self._read_fields(field.cases.get(found[field.on], []), content, around)
                found |= inner
                continue
            found[field.name], content = self._read_field(field, content, around | found)
            assert field.constant in (None, found[field.name])
        return found, content

    def _read_field(self, field: Field, content: bytes, around: dict[str, Any]) -> tuple[Any, bytes]:
        if not field.length:
            return self._read(field.kind, content, around)
        if field.length == "<V>":
            size, content = _read_length(content)
            own, content = content[:size], content[size:]
            assert len(own) == size, field.name
            if field.kind == "opaque":
                return own, content
            items = []
            while own:
                item, own = self._read(field.kind, own, around)
                items.append(item)
            return items, content
        count = int(field.length) if field.length.isdigit() else self._lengths[field.length](around)
        if field.kind == "opaque":
            assert len(content) >= count, field.name
            return content[:count], content[count:]
        items = []
        while len(items) < count if count >= 0 else content:
            item, content = self._read(field.kind, content, around | {"position": len(items)})
            items.append(item)
        return items, content

    def encode(self, kind: str, value: Any) -> bytes:
        """Write one struct; fields with a value in the document may be left out."""
        if kind in INTEGERS:
            return int(value).to_bytes(INTEGERS[kind], "big")
        if kind in self.enums:
            size, names = self.enums[kind]
            return next(number for number, name in names.items() if name == value).to_bytes(size, "big")
        return self._write_fields(self.structs[kind], value)

    def _write_fields(self, fields: list[Field | Select], value: dict[str, Any]) -> bytes:
        out = b""
        for field in fields:
            if isinstance(field, Select):
                out += self._write_fields(field.cases.get(value[field.on], []), value)
                continue
            given = value[field.name] if field.constant is None else field.constant
            if field.kind == "opaque":
                content = bytes(given)
                assert not field.length.isdigit() or len(content) == int(field.length), field.name
            else:
                content = b"".join(
                    self.encode(field.kind, item) for item in (given if field.length else [given])
                )
            out += (_length(len(content)) if field.length == "<V>" else b"") + content
        return out


def _length(size: int) -> bytes:
    if size < 1 << 6:
        return bytes([size])
    return (size | 1 << 14).to_bytes(2, "big") if size < 1 << 14 else (size | 1 << 31).to_bytes(4, "big")


def _read_length(content: bytes) -> tuple[int, bytes]:
    width = 1 << (content[0] >> 6)
    size = int.from_bytes(content[:width], "big") & ((1 << 8 * width - 2) - 1)
    assert _length(size) == content[:width], "length not in its shortest form"
    return size, content[width:]
