"""Write the generated parts of the pages in this directory; with `--check`, compare only.

A generated part stands between `<!-- generated: NAME ARGUMENTS -->` and `<!-- end -->`. What is between the two is
made from the code: module trees from docstrings, structs from their declarations, tables from settings and errors.
"""

from __future__ import annotations

import argparse
import ast
import enum
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PACKAGES = ("treewrap", "ohttp_relay", "mimi_mmr")
PART = re.compile(r"(<!-- generated: ([a-z-]+)([^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
COLUMN = 34
sys.path.insert(0, str(ROOT))

from mimi_mmr import presentation as tls  # noqa: E402
from mimi_mmr.uris import Kind, UriCodec  # noqa: E402

# --- the tree ----------------------------------------------------------------------------------------


def tree(package: str) -> str:
    """One line a module or folder of a package: the first sentence of its docstring."""
    return f"```text\n{chr(10).join(_branch(ROOT / package, 0))}\n```\n"


def _branch(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    for path in sorted(modules):
        yield _line(path.name, path, depth + 1)
    for inner in sorted(packages):
        yield from _branch(inner, depth + 1)


def _line(name: str, source: Path, depth: int) -> str:
    return f"{'  ' * depth}{name} ".ljust(COLUMN) + _sentence(source)


def _sentence(source: Path) -> str:
    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split()).removeprefix("Internal. ")
    return re.split(r"(?<=[a-z)`])\. ", paragraph)[0].rstrip(".")


# --- structs -----------------------------------------------------------------------------------------


@cache
def structs() -> dict[str, type[tls.Struct]]:
    """Every wire struct of mimi_mmr, by its name."""
    import mimi_mmr

    for module in pkgutil.walk_packages(mimi_mmr.__path__, "mimi_mmr."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, type[tls.Struct]] = {}
    waiting = list(tls.Struct.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__name__.startswith("_") and kind.__module__.startswith("mimi_mmr."):
            found[kind.__name__] = kind
    return found


def listing(*names: str) -> str:
    """Structs in TLS presentation language, each after the enums that it is the first of these to use."""
    blocks: list[str] = []
    known: set[type[enum.IntEnum]] = set()
    for name in names:
        fields = tls.layout(structs()[name])
        for kind, width in _enums([codec for _, codec in fields]):
            if kind not in known:
                known.add(kind)
                blocks.append(_enum(kind, width))
        blocks.append(_struct(structs()[name], fields))
    return "```c\n" + "\n\n".join(blocks) + "\n```\n"


def _enums(codecs: Sequence[tls.Codec]) -> Iterator[tuple[type[enum.IntEnum], int]]:
    for codec in codecs:
        if isinstance(codec, tls.Code):
            yield codec.kind, codec.width
        elif isinstance(codec, (tls.Vector, tls.Maybe)):
            yield from _enums([codec.item])


def _enum(kind: type[enum.IntEnum], width: int) -> str:
    members = [f"{one.name}({f'0x{int(one):04x}' if width > 1 else int(one)})" for one in kind]
    most = 256**width - 1
    if most not in map(int, kind):
        members.append(f"({most})")  # which says how wide it is (RFC 8446, section 3.5)
    return f"enum {{ {', '.join(members)} }} {kind.__name__};"


def _struct(kind: type[tls.Struct], fields: Sequence[tuple[str, tls.Codec]]) -> str:
    lines = ["struct {"]
    for name, codec in fields:
        before, after, note = _field(codec)
        line = f"    {before} {name}{after};"
        lines.append(line.ljust(52) + f" /* {note} */" if note else line)
    end = f"}} {kind.__name__};"
    limited = kind.LIMIT != tls.Struct.LIMIT
    lines.append(end.ljust(52) + f" /* at most {kind.LIMIT:,} bytes */" if limited else end)
    return "\n".join(lines)


def _field(codec: tls.Codec) -> tuple[str, str, str]:
    """What stands before a field's name, what behind it, and what a comment adds."""
    match codec:
        case tls.Uint():
            return f"uint{8 * codec.width}", "", ""
        case tls.Boolean():
            return "uint8", "", "0 or 1"
        case tls.Fixed():
            return "opaque", f"[{codec.size}]", ""
        case tls.Opaque():
            return "opaque", "<V>", _bytes(codec.least, codec.limit)
        case tls.Text():
            return "opaque", "<V>", f"UTF-8, {_bytes(0, codec.limit)}"
        case tls.Code():
            return codec.kind.__name__, "", ""
        case tls.Nested():
            return codec.kind.__name__, "", ""
        case UriCodec():
            return "IdentifierUri", "", _uri(codec.kind)
        case tls.Vector():
            before, after, note = _field(codec.item)
            most = (
                f"at most {codec.count:,}"
                if codec.count != tls.Vector.__dataclass_fields__["count"].default
                else ""
            )
            return before, f"{after}<V>", "; each ".join(part for part in (most, note) if part)
        case tls.Maybe():
            before, after, note = _field(codec.item)
            return f"optional<{before}{after}>", "", note
    raise TypeError(f"{codec!r} has no form in presentation language here")


def _bytes(least: int, most: int) -> str:
    return f"{most:,} bytes" if least == most else f"at most {most:,} bytes"


def _uri(kind: Kind | None) -> str:
    return "any kind" if kind is None else f"of a {kind.name.lower().replace('_', ' ')}"


# --- tables ------------------------------------------------------------------------------------------


def endpoints() -> str:
    """Every endpoint, by the way that leads to it."""
    from mimi_mmr.protocol.endpoints import endpoints_table

    return endpoints_table()


def errors() -> str:
    """What a provider may answer: error codes, with the class and the meaning of each."""
    from mimi_mmr.errors import CODES, WrongEpoch

    kinds = CODES | {WrongEpoch.code: WrongEpoch}
    rows = [f"| `{code}` | `{kind.__name__}` | {_first(kind)} |" for code, kind in sorted(kinds.items())]
    return "\n".join(["| code | class | what it says |", "| --- | --- | --- |", *rows]) + "\n"


def _first(kind: type) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")


def settings(name: str) -> str:
    """The settings of `serve` or of `asset-host`."""
    from mimi_mmr.provider import settings as provider

    asset_host = name == "asset-host"
    return provider.settings_table(provider.AssetHostSettings if asset_host else provider.Settings) + "\n"


PARTS: dict[str, Callable[..., str]] = {
    "tree": tree,
    "structs": listing,
    "endpoints": endpoints,
    "errors": errors,
    "settings": settings,
}

# --- pages -------------------------------------------------------------------------------------------


def renewed(page: str) -> str:
    """A page with its generated parts made anew."""

    def make(part: re.Match[str]) -> str:
        return part[1] + PARTS[part[2]](*part[3].split()) + part[5]

    return PART.sub(make, page)


def pages() -> list[Path]:
    """Pages that may have generated parts."""
    return sorted(DOCS.rglob("*.md"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or with `--check` compare; the exit status is 1 if a page is not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    check = parser.parse_args(arguments).check
    stale = [page for page in pages() if renewed(page.read_text()) != page.read_text()]
    for page in stale:
        sys.stdout.write(f"{page.relative_to(ROOT)}{' is out of date' if check else ''}\n")
        if not check:
            page.write_text(renewed(page.read_text()))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
