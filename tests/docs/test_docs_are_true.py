"""What the pages say of the code is so: paths and names exist, links lead somewhere, parts are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from tests.docs.pages import PAGES, ROOT, definitions, name_of, prose

TOPS = ("treewrap", "ohttp_relay", "mimi_mmr", "tests", "benchmarks", "docs", ".ci")
PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, TOPS))})/[\w./-]*)`")
DOTTED = re.compile(r"`((?:mimi_mmr|treewrap|ohttp_relay)(?:\.\w+)+)(?:\([^`]*\))?`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
# A row of the architecture's tables: after a path, the names that are defined there.
PLACED = re.compile(r"`([\w/]+\.py)`((?:,? `[A-Za-z_][\w.]*`)+)")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
GLOSSARY = ROOT / "docs" / "glossary.md"


def named(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """(page, what) for everything that a pattern finds in the pages' prose."""
    return [(name_of(page), found) for page in PAGES for found in pattern.findall(prose(page))]


def test_generated_parts_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, f"run `python docs/generate.py`: {capsys.readouterr().out}"


def test_a_part_that_is_not_current_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- generated: errors -->\nstale\n<!-- end -->\nafter\n")
    monkeypatch.setattr(generate, "pages", lambda: [page])
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "stale" in page.read_text()
    assert generate.main([]) == 0
    assert "| `not-allowed` | `NotAllowed` |" in page.read_text()
    assert page.read_text().endswith("<!-- end -->\nafter\n")
    assert generate.main(["--check"]) == 0


def test_every_path_exists() -> None:
    paths = named(PATH)
    assert len(paths) > 100
    wrong = [f"{page}: {path}" for page, path in paths if not (ROOT / path).exists()]
    assert wrong == [], "\n".join(wrong)


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for inner in parts[end:]:
            fields = getattr(found, "__annotations__", {})
            if not hasattr(found, inner) and inner not in fields:
                return False
            found = getattr(found, inner, None)
        return True
    return False


def test_every_dotted_name_is_there() -> None:
    names = [(page, name) for page, name in named(DOTTED) if not name.endswith((".json", ".py", ".md"))]
    assert len(names) > 60
    wrong = [f"{page}: {name}; defined in {elsewhere(name)}" for page, name in names if not resolves(name)]
    assert wrong == [], "\n".join(wrong)
    assert not resolves("mimi_mmr.uris.NoSuchName")
    assert not resolves("mimi_mmr.no_such_module.Name")


def test_every_module_that_a_command_names_is_there() -> None:
    modules = {name for page in PAGES for name in re.findall(r"python -m ([\w.]+)", page.read_text())}
    assert {"benchmarks.treewrap", "treewrap.vectors", "mimi_mmr.lab.vectors"} <= modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def placed() -> list[tuple[str, str]]:
    """(file, name) as the architecture places them."""
    return [
        (path, name)
        for path, names in PLACED.findall(prose(ARCHITECTURE))
        for name in re.findall(r"`([^`]+)`", names)
    ]


def elsewhere(name: str) -> list[str]:
    """Where a name is defined, for the message of a test that missed it."""
    last = name.rpartition(".")[2]
    files = (path for package in generate.PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [
        name_of(path) for path in files if any(one.rpartition(".")[2] == last for one in definitions(path))
    ]


def test_the_architecture_places_every_name_where_it_is() -> None:
    found = placed()
    assert len(found) > 100
    wrong = [
        f"{path} {name}; defined in {elsewhere(name)}"
        for path, name in found
        if (ROOT / path).is_file() and name not in definitions(ROOT / path)
    ]
    assert wrong == [], "\n".join(wrong)


def test_the_architecture_has_a_line_for_every_module() -> None:
    page = ARCHITECTURE.read_text()
    for package in generate.PACKAGES:
        assert generate.tree(package) in page


def anchors(page: Path) -> set[str]:
    """What `#…` may follow a page's name: its headings, as they are written in links."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def broken(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    to = (page.parent / path).resolve() if path else page
    if not to.exists():
        return True
    return bool(anchor) and anchor not in anchors(to)


def test_links_lead_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in LINK.findall(prose(page)) if "://" not in target]
    assert len(links) > 50
    assert [(name_of(page), target) for page, target in links if broken(page, target)] == []
    assert broken(ARCHITECTURE, "no-such-page.md")
    assert broken(ARCHITECTURE, "#no-such-heading")


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def glossary() -> list[list[str]]:
    """Word, meaning, source, code: one row a word."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in GLOSSARY.read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| word ", "| --- "))
    ]
    assert len(rows) > 80
    return rows


def test_the_glossary_has_one_line_for_each_word() -> None:
    words = [word for row in glossary() for word in row[0].split(", ")]
    assert sorted(words) == sorted(set(words))
    for row in glossary():
        assert len(row) == 4, row
        word, meaning, _, code = row
        assert word
        assert meaning
        assert re.fullmatch(r"(?:`[\w.]+`)?", code), row


def test_every_decision_is_in_the_index_and_has_its_sections() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert [path.name for path in pages] == re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", index, re.MULTILINE)
    for path in pages:
        text = path.read_text()
        number, _, title = text.partition("\n")[0].removeprefix("# ").partition(": ")
        assert f"| [{number}]({path.name}) | {title} |" in index
        assert re.search(r"^Status: (accepted|replaced by \[\d{4}\])", text, re.MULTILINE), path
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert f"\n{heading}\n" in text, (path, heading)
