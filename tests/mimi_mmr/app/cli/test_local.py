"""`mimi-mmr local`: settings that `mimi-mmr serve` takes, for two providers that know each other."""

from __future__ import annotations

import shlex
import socket
import ssl
from pathlib import Path

import pytest

from mimi_mmr.app.cli.local_providers import set_up
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings import load_settings
from tests.mimi_mmr.app.cli.people import command


async def test_two_providers_that_know_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = await command("local", "try", "--port", "20001", cwd=tmp_path)
    assert done.out.splitlines() == [
        f"mimi-mmr serve --config try/{domain}/config.toml" for domain in ("a.example", "b.example")
    ]
    first, second = (
        load_settings(tmp_path / "try" / name / "config.toml") for name in ("a.example", "b.example")
    )
    assert first.peers == {"b.example": second.base_url}
    assert second.peers == {"a.example": first.base_url}
    assert (first.base_url, second.base_url) == ("https://127.0.0.1:20001", "https://127.0.0.1:20002")
    hosts = [settings.asset_host for settings in (first, second)]
    assert hosts[0] and hosts[1] and hosts[0].origin == hosts[1].origin == "https://127.0.0.1:20003"
    assert (hosts[0].listen, hosts[1].listen) == ("127.0.0.1:20003", None)
    assert hosts[0].upload_token == hosts[1].upload_token
    assert set(TrustAnchors.from_directory(tmp_path / "try" / "trust").roots) == {"a.example", "b.example"}
    monkeypatch.setenv("MIMI_MMR_HOME", "elsewhere")  # which is of other commands, and no misspelt setting
    monkeypatch.setenv("MIMI_MMR_PASSPHRASE", "x")
    assert load_settings(tmp_path / "try" / "a.example" / "config.toml").domain == "a.example"
    ssl.create_default_context(cafile=tmp_path / "try" / "tls-roots.pem")
    assert (tmp_path / "try").stat().st_mode & 0o777 == 0o700
    done = await command("local", "try", cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "exists" in done.err


async def test_the_commands_can_be_pasted_whatever_the_directory_is_called(tmp_path: Path) -> None:
    done = await command("local", "try it; now", "--port", "20001", cwd=tmp_path)
    given = [shlex.split(line) for line in done.out.splitlines()]
    assert [Path(words[-1]).parent.parent for words in given] == [Path("try it; now")] * 2


async def test_ports_that_others_listen_on_are_named_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await command("local", "try", "--port", str(port - 2), "--json", cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert f"port {port} of 127.0.0.1" in done.error["message"]
    assert "--port" in done.error["hint"]
    assert not (tmp_path / "try").exists()


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        set_up(tmp_path / "file" / "try", 20001)
