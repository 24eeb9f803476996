"""The page for operators is run as it is printed: a CA, a provider, an asset host. Its words are the program's."""

from __future__ import annotations

import re
import socket
import ssl
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from mimi_mmr.app.cli import app
from mimi_mmr.crypto.certificates import CertificateAuthority
from mimi_mmr.provider.settings import AssetHostSettings, Settings, settings_table
from tests.docs.pages import ROOT, run_by, table
from tests.mimi_mmr.app.cli.test_the_readme import Shell
from tests.mimi_mmr.provider.settings.settings_world import SECRET

PAGE = "docs/operations.md"
TEXT = (ROOT / PAGE).read_text()
INSTALL = "python3 -m venv .venv && .venv/bin/pip install ."
MODULE = "tests/docs/test_operations_page.py"


def toml(number: int) -> str:
    """A settings file of the page."""
    return str(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[number])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port


def tls_files(
    directory: Path, domain: str, chain: str = "tls.pem", private_key: str = "tls-key.pem"
) -> ssl.SSLContext:
    """A certificate and its key, as the page's settings name them; the context that trusts them."""
    root, key = CertificateAuthority.create(domain, time.time()), ec.generate_private_key(ec.SECP256R1())
    certificate = root.issue_server(key.public_key(), ["127.0.0.1"], time.time())
    (directory / chain).write_bytes(certificate.public_bytes(Encoding.PEM))
    private = directory / private_key
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    return ssl.create_default_context(cadata=root.root_pem().decode())


async def health(port: int, tls: ssl.SSLContext) -> int:
    connector = aiohttp.TCPConnector(ssl=tls)
    url = f"https://127.0.0.1:{port}/health"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return answer.status


async def test_a_provider_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    port, tls = free_port(), tls_files(tmp_path, "b.example")
    prepare, serve = run_by(PAGE, f"{MODULE}::test_a_provider_runs_as_printed")
    assert prepare.startswith(INSTALL)
    shell = await Shell.open(tmp_path)
    try:
        said = await shell.type(prepare.partition("\n")[2])  # the installation is this one
        assert "trust/b.example.pem" in said
        peer = CertificateAuthority.create("a.example", time.time())
        (tmp_path / "trust" / "a.example.pem").write_bytes(peer.root_pem())
        settings = toml(0).replace("0.0.0.0:8443", f"127.0.0.1:{port}").replace("…", SECRET)
        settings = re.sub(r"^\[database\].*?(?=^\[)", "", settings, flags=re.MULTILINE | re.DOTALL)
        (tmp_path / "provider.toml").write_text(settings)
        await shell.type(serve.replace("\n", " &\n"))
        assert "b.example serves on" in await shell.until("serves on")
        assert await health(port, tls) == 200
    finally:
        await shell.close()
    kept = {path.name for path in (tmp_path / "data").iterdir()}
    listed = {
        name for row in table(ROOT / PAGE, "## What it keeps") for name in re.findall(r"`([^`]+)`", row[0])
    }
    listed = {name.rstrip("/") for name in listed}
    assert {name for name in kept if not name.endswith(("-wal", "-shm"))} <= listed
    assert listed - kept <= {"downloads", "assets"}


async def test_an_asset_host_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    port, tls = free_port(), tls_files(tmp_path, "storage.example")
    (command,) = run_by(PAGE, f"{MODULE}::test_an_asset_host_runs_as_printed")
    settings = toml(1).replace("0.0.0.0:8444", f"127.0.0.1:{port}").replace("…", SECRET)
    (tmp_path / "assets.toml").write_text(settings)
    shell = await Shell.open(tmp_path)
    try:
        await shell.type('export PATH="$PWD/.venv/bin:$PATH"')
        await shell.type(command.replace("\n", " &\n"))
        await shell.until("serves on")
        assert await health(port, tls) == 200
    finally:
        await shell.close()


def test_the_settings_are_printed() -> None:
    (command,) = run_by(PAGE, f"{MODULE}::test_the_settings_are_printed")
    done = CliRunner().invoke(app, command.split()[1:])
    assert done.exit_code == 0
    for kind in (Settings, AssetHostSettings):
        assert settings_table(kind) in done.stdout
        assert settings_table(kind) in TEXT


@pytest.mark.parametrize("row", table(ROOT / PAGE, "## When something is wrong"), ids=lambda row: row[0])
def test_the_words_in_the_log_are_the_programs(row: list[str]) -> None:
    parts = [ROOT / part for part in ("mimi_mmr/provider", "ohttp_relay/server", "ohttp_relay/transport")]
    source = "".join(path.read_text() for part in parts for path in part.rglob("*.py"))
    for words in re.findall(r"`([^`]+)`", row[0]):
        for part in words.split("…"):
            assert part.strip(" :") in source, part
