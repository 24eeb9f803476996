"""Every block of shell commands in the pages is run by a test; the few that are not say why, and are parsed."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.docs.pages import PAGES, ROOT, Block, shell_blocks, test_exists

BLOCKS = [block for page in PAGES for block in shell_blocks(page)]
COMMAND = re.compile(r"^(?:\$ |make |python|pip |\.venv/|mimi-mmr |ohttp-relay |sh |bash )", re.MULTILINE)
MOST_PARSED = 6


def make(target: str) -> str:
    """What `make target` would do."""
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def of_kind(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


def test_every_block_says_who_runs_it() -> None:
    assert len(BLOCKS) > 20
    assert [str(block) for block in BLOCKS if not block.kind] == []


def test_no_command_hides_in_a_block_of_another_kind() -> None:
    for page in PAGES:
        for language, content in re.findall(
            r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            assert language == "sh" or not COMMAND.search(content), (page, content)


def test_who_is_said_to_run_a_block_is_there() -> None:
    assert [str(block) for block in of_kind("run") if not test_exists(block.word)] == []
    assert not test_exists("tests/docs/test_commands_are_run.py::test_that_is_not_there")


def test_blocks_that_are_typed_are_in_the_walk_through() -> None:
    """Which `tests/mimi_mmr/app/cli/test_the_readme.py` types, whole and in order."""
    pages = {block.page for block in of_kind("typed")}
    assert pages == {ROOT / "README.md", ROOT / "docs" / "walkthrough.md"}


def test_few_blocks_are_only_parsed_and_each_says_why() -> None:
    parsed = of_kind("parsed")
    assert len(parsed) <= MOST_PARSED
    assert all(len(block.word.split()) > 3 for block in parsed)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_shell_reads_it(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.commands, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", of_kind("parsed"), ids=str)
def test_what_it_would_run_is_there(block: Block) -> None:
    for target in re.findall(r"^make (\w+)", block.commands, re.MULTILINE):
        assert make(target)
    for path in re.findall(r" (tests/\S+)", block.commands):
        assert (ROOT / path).exists()


def test_make_targets_run_what_they_say() -> None:
    assert "mimi-mmr demo" in make("demo")
    assert "-m pytest" in make("test")
    commands = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^make (\w+)", commands, re.MULTILINE)) == {"demo", "test"}
