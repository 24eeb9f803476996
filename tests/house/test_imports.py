"""Imports go down the floors only, in no circle; the protocol does no I/O. Imports for type checkers count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.code import PACKAGES, Module, arrows, circles, modules, read

# From the ground up. A group imports from the floors below it, and within itself; two of one floor not each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("presentation",),
    ("uris",),
    ("crypto",),
    ("mls",),
    ("protocol",),
    ("hub",),
    ("member",),
    ("provider", "client"),
    ("app.commands",),
    ("app.agent",),
    ("lab",),
    ("app.cli",),
    ("__main__",),
)
GROUPS = [group for floor in FLOORS for group in floor]
FACES = {"mimi_mmr", "mimi_mmr.app"}  # what they show is of any floor
IO = {"asyncio", "aiohttp", "sqlalchemy", "socket", "time", "ssl", "threading", "logging", "random"}
SANS_IO = ("treewrap", *(f"mimi_mmr.{group}" for group in ("crypto", "mls", "protocol", "hub", "member")))


def group_of(name: str) -> str:
    """Return the group that a module of mimi_mmr is, or lies in."""
    inner = name.removeprefix("mimi_mmr.")
    groups = [group for group in GROUPS if inner == group or inner.startswith(f"{group}.")]
    assert groups, f"{name} is in no group of FLOORS"
    return max(groups, key=len)


def floor_of(group: str) -> int:
    """Return the number of a group's floor."""
    return next(number for number, floor in enumerate(FLOORS) if group in floor)


def upwards(found: dict[str, Module]) -> list[str]:
    """Return the imports that do not go down."""
    wrong = []
    for name, module in found.items():
        if name.partition(".")[0] != "mimi_mmr" or name in FACES:
            continue
        for other in module.own:
            if other.partition(".")[0] != "mimi_mmr" or other in FACES:
                continue
            above, below = group_of(name), group_of(other)
            if below != above and floor_of(below) >= floor_of(above):
                wrong.append(f"{name} -> {other}")
    return sorted(wrong)


def within(prefix: str) -> list[Module]:
    """Return the modules of one package."""
    return [module for name, module in modules().items() if name == prefix or name.startswith(f"{prefix}.")]


def test_there_is_something_to_look_at() -> None:
    assert {name.partition(".")[0] for name in modules()} == set(PACKAGES)
    assert all(len(within(prefix)) > 1 for prefix in (*PACKAGES, *SANS_IO))
    assert any("aiohttp" in module.foreign for module in within("mimi_mmr.provider"))


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circles(arrows(modules())) == []


def test_imports_go_down_the_floors_only() -> None:
    assert upwards(dict(modules())) == []


def test_every_group_of_the_floors_exists() -> None:
    found = {group_of(name) for name in modules() if name.startswith("mimi_mmr.") and name not in FACES}
    assert found == set(GROUPS)


@pytest.mark.parametrize("package", ["treewrap", "ohttp_relay"])
def test_what_is_useful_alone_stands_alone(package: str) -> None:
    for module in within(package):
        assert {other.partition(".")[0] for other in module.own} <= {package}, module.name


def test_client_and_provider_do_not_know_each_other() -> None:
    for one, other in (("client", "provider"), ("provider", "client")):
        for module in within(f"mimi_mmr.{one}"):
            assert not [name for name in module.own if name.startswith(f"mimi_mmr.{other}")], module.name


def test_only_the_command_line_imports_the_lab() -> None:
    for name, module in modules().items():
        if not name.startswith(("mimi_mmr.lab", "mimi_mmr.app.cli")):
            assert not [other for other in module.own if other.startswith("mimi_mmr.lab")], name


@pytest.mark.parametrize("package", SANS_IO)
def test_the_protocol_does_no_io_and_reads_no_clock(package: str) -> None:
    for module in within(package):
        assert not module.foreign & IO, f"{module.name} imports {module.foreign & IO}"
        outside = {other for other in module.own if other.startswith("ohttp_relay")}
        assert outside <= {"ohttp_relay.hpke"}, module.name  # HPKE, which does no I/O either


def test_nothing_loose_lies_in_the_root_of_mimi_mmr() -> None:
    loose = {name for name in modules() if name.startswith("mimi_mmr.") and name.count(".") == 1}
    assert {name for name in loose if not modules()[name].is_package} == {
        f"mimi_mmr.{name}" for name in ("errors", "presentation", "uris", "__main__")
    }


# --- that these tests find what they look for ---------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, Module]:
    """Three packages in which a hub imports a client for its types, and two modules import each other."""
    for file, content in {
        "treewrap/__init__.py": "",
        "ohttp_relay/__init__.py": "",
        "mimi_mmr/__init__.py": "",
        "mimi_mmr/hub/__init__.py": "",
        "mimi_mmr/hub/mode.py": "if TYPE_CHECKING:\n    from mimi_mmr.client.room import Room\n",
        "mimi_mmr/client/__init__.py": "",
        "mimi_mmr/client/room.py": "def late():\n    from mimi_mmr.client.people import who\n",
        "mimi_mmr/client/people.py": "from mimi_mmr.client import room\n",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return dict(read(tmp_path))


def test_an_import_upwards_is_found_also_if_it_is_for_types_only(planted: dict[str, Module]) -> None:
    assert upwards(planted) == ["mimi_mmr.hub.mode -> mimi_mmr.client.room"]


def test_a_circle_is_found_also_if_it_closes_inside_a_function(planted: dict[str, Module]) -> None:
    assert circles(arrows(planted)) == [["mimi_mmr.client.people", "mimi_mmr.client.room"]]
