"""Texts, names, files and environments that are not what they should be get a clear answer, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.cli import app, passphrase
from mimi_mmr.app.commands.errors import AgentError, BadRequest
from mimi_mmr.app.commands.passphrases import MIN_PASSPHRASE
from mimi_mmr.app.commands.table import COMMANDS
from mimi_mmr.errors import ConfigError
from tests.mimi_mmr.provider.settings.settings_world import clean_environment

LATIN = b"gr\xfc\xdfe"
MARKED = os.fsdecode(LATIN)  # as Python hands over an argument in another encoding
ENV = {"TERM": "dumb", "COLUMNS": "300"}


def test_an_argument_that_is_not_utf8_is_refused_by_its_name(tmp_path: Path) -> None:
    here = ["--home", str(tmp_path / "home")]
    for arguments, name in (
        (["room", "send", "x", MARKED], "TEXT"),
        (["room", "send", MARKED, "x"], "ROOM"),
        (["room", "add", "x", "bob", MARKED], "USER"),
        (["room", "create", "--name", MARKED], "--name"),
    ):
        done = CliRunner().invoke(app, [*arguments, *here], env=ENV)
        assert (done.exit_code, type(done.exception)) == (2, SystemExit), done.output
        assert name in done.output
        assert "expected text in UTF-8" in done.output


def test_a_files_name_that_is_not_utf8_is_refused_by_the_arguments_name(tmp_path: Path) -> None:
    file = Path(os.fsdecode(bytes(tmp_path) + b"/" + LATIN))
    file.write_text("x")
    done = CliRunner().invoke(
        app, ["asset", "put", "x", str(file), "--home", str(tmp_path / "home")], env=ENV
    )
    assert (done.exit_code, type(done.exception)) == (2, SystemExit), done.output
    assert "FILE" in done.output
    assert "name of this file or directory is not UTF-8: use a copy under another name" in done.output


def test_the_agent_takes_no_such_text_either() -> None:
    for wrong in ({"room": "x", "text": MARKED}, {"room": MARKED, "text": "x"}):
        with pytest.raises(BadRequest, match="expected text in UTF-8"):
            COMMANDS["room.send"].from_request(wrong)


def test_stdin_that_is_not_utf8_is_refused_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    def send(content: bytes) -> subprocess.CompletedProcess[bytes]:
        arguments = ["room", "send", "x", "-", "--home", str(tmp_path / "home"), "--json"]
        return subprocess.run(
            [sys.executable, "-X", "utf8", "-m", "mimi_mmr", *arguments],
            input=content,
            capture_output=True,
            check=False,
            env=clean_environment(),
        )

    done = send(LATIN)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"expected text in UTF-8 on standard input; byte 2 is not" in done.stderr
    assert b"Traceback" not in done.stderr
    done = send(b"\xef\xbb\xbf\n")  # nothing but the mark: an empty text
    assert b"expected a text of 1 to 60000 bytes, got 0" in done.stderr
    assert (done.returncode, b'"code": "usage"' in done.stderr) == (2, True)


def test_a_file_is_not_written_between_json() -> None:
    done = CliRunner().invoke(app, ["asset", "get", "x", "3", "--out", "-", "--json"], env=ENV)
    assert (done.exit_code, type(done.exception)) == (2, SystemExit), done.output
    assert "--out" in done.output


def test_a_home_that_can_not_be_made_is_named_with_what_to_do() -> None:
    with pytest.raises(AgentError, match="the home /proc/x can't be made") as caught:
        Home(Path("/proc/x")).make()
    assert "--home or MIMI_MMR_HOME" in caught.value.hint


def test_only_the_agents_own_files_are_deleted_with_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for other, left in (("", False), ("letter", True)):
        home.make()
        for path in (home.lock, home.log, home.starting):
            path.write_text("")
        if other:
            (home.path / other).write_text("")
        home.remove()
        assert home.path.exists() is left
    assert [path.name for path in home.path.iterdir()] == ["letter"]


def test_without_a_home_directory_it_asks_for_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "MIMI_MMR_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # no such user in the system's list
    with pytest.raises(ConfigError, match="--home or MIMI_MMR_HOME"):
        Home.find(None)
    done = CliRunner().invoke(app, ["room", "list"], env=ENV)
    assert (done.exit_code, type(done.exception)) == (2, SystemExit)
    assert "HOME is not set" in done.output
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ConfigError, match="HOME is not set"):
        Home.find(None)


def test_a_working_directory_that_is_gone_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = CliRunner().invoke(app, ["room", "list", "--home", "relative"], env=ENV)
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "No such file or directory" in done.output


# --- passphrases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"a fine passphrase\n",
        b"\xef\xbb\xbfa fine passphrase\r\n",
        b"a fine passphrase",
        b"a fine passphrase\nand a second line\n",
    ],
)
def test_a_passphrase_is_the_first_line_whoever_wrote_the_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    assert passphrase.given_passphrase(file) == "a fine passphrase"


def test_a_line_ends_where_it_does_at_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("a\u2028b\x0cc\x85d\n".encode())
    file.chmod(0o600)
    assert passphrase.given_passphrase(file) == "a\u2028b\x0cc\x85d"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfea\x00", b"short\n"])
def test_a_wrong_file_is_blamed_on_the_option_that_named_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    option = "--new-passphrase-file"
    with pytest.raises(ConfigError, match=f"^{option}: "):
        passphrase.read_new_passphrase(file, option)
    with pytest.raises(ConfigError, match=f"^{option}: No such file"):
        passphrase.read_new_passphrase(tmp_path / "none", option)


def test_a_new_passphrase_of_one_letter_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIMI_MMR_PASSPHRASE", "a")
    with pytest.raises(
        ConfigError, match=r"^MIMI_MMR_PASSPHRASE: .* at least 8 characters, got 1: whoever gets"
    ):
        passphrase.given_new_passphrase(None)
    assert passphrase.given_passphrase(None) == "a"  # a state that is there opens with what it was made with
    monkeypatch.setenv("MIMI_MMR_PASSPHRASE", "a" * MIN_PASSPHRASE)
    assert passphrase.given_new_passphrase(None) == "a" * MIN_PASSPHRASE
    with pytest.raises(BadRequest, match="at least 8 characters"):
        COMMANDS["account.passphrase"].from_request({"new": "a"})
