"""What programs get: `--json` on every command, errors too; and help in plain words."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from mimi_mmr.app.cli import app, main
from mimi_mmr.app.commands import NOUNS
from tests.mimi_mmr.provider.settings.settings_world import clean_environment

ODD = re.compile(r"<(?:str|bool|int|float|file|dir|path)\b|list\[|BOOLEAN|\bbool\b")


def commands() -> dict[str, Any]:
    """Every command of the command line, by its words."""
    found: dict[str, Any] = {}
    for name, one in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        real = typer.main.get_command(import_module(f"mimi_mmr.app.cli.{name}").app) if name in NOUNS else one
        inner = getattr(real, "commands", {"": real})
        found |= {f"{name} {verb}".strip(): each for verb, each in inner.items()}
    return found


EVERY = commands()


@pytest.mark.parametrize("words", EVERY)
def test_every_command_has_json(words: str) -> None:
    assert "--json" in {flag for parameter in EVERY[words].params for flag in parameter.opts}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of a command in this process, whose standard output has no descriptor to check."""
    monkeypatch.setattr("mimi_mmr.app.cli.output.checked", lambda _: nullcontext())
    monkeypatch.setattr("sys.argv", ["mimi-mmr", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("words", EVERY)
def test_help_has_no_odd_types(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, *words.split(), "--help") == 0
    said = capsys.readouterr().out
    assert "--json" in said
    assert not ODD.search(said), said


def test_help_of_a_group_has_no_odd_types_and_there_is_a_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    assert "--version" in said
    assert not ODD.search(said), said
    assert run(monkeypatch, "--version") == 0
    assert re.fullmatch(r"mimi-mmr \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["room", "link", "--json"], "ROOM"),
        (["room", "dance", "--json"], "dance"),
        (["dance", "--json"], "dance"),
        (["room", "link", "x", "--expires", "soon", "--json"], "as in 1d"),
        (["room", "link", "x", "--uses", "many", "--json"], "--uses"),
        (["demo", "--members", "-1", "--json"], "--members"),
        (["local", "--json"], "DIRECTORY"),
    ],
)
def test_a_usage_error_is_json(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    error = json.loads(err)["error"]
    assert (out, error["code"], error["hint"]) == ("", "usage", "")
    assert said.lower() in error["message"].lower()


def test_commands_of_operators_speak_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> Any:
        assert run(monkeypatch, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    made = said("local", str(tmp_path / "try"), "--port", "20011")["providers"]
    assert [provider["domain"] for provider in made] == ["a.example", "b.example"]
    assert Path(made[0]["config"]).is_file()
    assert {row["setting"] for row in said("settings")["asset-host"]} >= {"listen", "data_dir"}
    monkeypatch.chdir(tmp_path)
    assert said("ca", "c.example") == {"root": "trust/c.example.pem"}
    for arguments, words in (
        (["ca", "c.example"], "exists"),
        (["local", str(tmp_path / "try")], "exists"),
        (["serve"], "domain"),
        (["asset-host"], "upload_token"),
        (["demo", "--keep", str(tmp_path)], "not empty"),
    ):
        assert run(monkeypatch, *arguments, "--json") == 2
        error = json.loads(capsys.readouterr().err)["error"]
        assert error["code"] == "config"
        assert words in error["message"]


def test_the_port_that_is_in_use_is_named_by_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A provider with an asset host beside it: which of the two can't listen is said."""
    assert run(monkeypatch, "local", str(tmp_path / "try"), "--json") == 0
    config = Path(json.loads(capsys.readouterr().out)["providers"][0]["config"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("127.0.0.1:8463", f"127.0.0.1:{port}"))
        done = subprocess.run(
            [sys.executable, "-m", "mimi_mmr", "serve", "--config", str(config), "--json"],
            env=clean_environment() | {"MIMI_MMR_LISTEN": "127.0.0.1:0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["message"].startswith(f"asset_host.listen: 127.0.0.1:{port}: ")


def test_an_output_that_fails_is_json_on_stderr(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mimi_mmr", "local", str(tmp_path / "try"), "--json"],
            env=clean_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == "output"
