"""What a provider keeps on disk: nothing is made or replaced unasked, and nobody else may read it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mimi_mmr.app.cli import app
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.app import Provider
from mimi_mmr.provider.databases import hold_databases
from mimi_mmr.provider.key_files import make_authority
from mimi_mmr.provider.settings import ROLES, load_settings
from tests.mimi_mmr.provider.settings.settings_world import SECRET, Place, clean_environment


def serve(place: Place, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `mimi-mmr serve` says that can't start, run where its settings are."""
    monkeypatch.chdir(place.directory)
    done = CliRunner().invoke(app, ["serve", "--config", "config.toml"])
    assert done.exit_code == 2, done.stderr
    assert SECRET not in done.stderr
    return done.stderr.strip().removeprefix("mimi-mmr: ")


# --- the CA ------------------------------------------------------------------------------------------


def test_a_ca_that_is_gone_is_not_made_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place.world.trust_dir / "a.example.pem"
    before = root.read_bytes()
    place.rewrite(r"^trust_dir = .*$", 'trust_dir = "trust"')
    (place.directory / "trust").symlink_to(place.world.trust_dir)
    (place.directory / "data" / "ca.pem").unlink()
    assert serve(place, monkeypatch) == (
        "data_dir: no data/ca.pem; restore it from your backup, or make a new CA with: mimi-mmr ca a.example"
    )
    assert root.read_bytes() == before
    assert not (place.directory / "data" / "ca.pem").exists()


def test_the_command_for_a_new_ca_names_the_directories(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.directory / "data" / "ca.pem").unlink()
    said = serve(place, monkeypatch)
    assert said.endswith(f"mimi-mmr ca a.example --trust-dir {place.world.trust_dir}")


def test_the_command_for_a_new_ca_can_be_pasted_whatever_the_directory_is_called(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.rewrite(r"^data_dir = .*$", 'data_dir = "my data; rm x"')
    said = serve(place, monkeypatch)
    assert shlex.split(said.partition("with: ")[2])[:5] == [
        "mimi-mmr",
        "ca",
        "a.example",
        "--data-dir",
        "my data; rm x",
    ]


def test_a_root_that_others_trust_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "trust" / "a.example.pem"
    root.parent.mkdir()
    root.write_text("the old one")
    with pytest.raises(FileExistsError) as refused:
        make_authority("a.example", tmp_path / "ca.pem", root.parent, time.time())
    assert refused.value.filename == str(root)
    done = CliRunner().invoke(app, ["ca", "a.example"])
    assert done.exit_code == 2
    assert done.stderr.startswith("mimi-mmr: trust/a.example.pem exists; a new CA would orphan every device")
    assert root.read_text() == "the old one"
    assert not list(tmp_path.glob("**/ca.pem"))


def test_another_root_under_ones_own_name_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = place.world.trust_dir
    (trust / "a.example.pem").write_bytes((trust / "b.example.pem").read_bytes())
    assert serve(place, monkeypatch) == "trust_dir: a.example.pem is not the root of data/ca.pem"
    (trust / "a.example.pem").unlink()
    expected = f"trust_dir: no {trust}/a.example.pem; it is the certificate in data/ca.pem"
    assert serve(place, monkeypatch) == expected


# --- the roots of others -----------------------------------------------------------------------------


def test_a_peer_without_a_root_is_named_with_the_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.world.trust_dir / "c.example.pem"
    path.unlink()
    assert serve(place, monkeypatch) == f"peers.c.example: no {path}; ask its operator for it"


def test_a_file_that_is_no_root_is_named_by_its_path(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.world.trust_dir / "c.example.pem"
    path.write_text("nothing")
    assert serve(place, monkeypatch) == f"trust_dir: {path}: expected certificates in PEM"
    path.write_bytes((place.world.trust_dir / "b.example.pem").read_bytes())
    path.rename(place.world.trust_dir / "roots.pem")
    said = f"trust_dir: {place.world.trust_dir / 'roots.pem'}: expected a provider's domain as its name"
    assert serve(place, monkeypatch) == said


async def test_files_of_other_programs_beside_the_roots_are_passed_over(place: Place) -> None:
    """What macOS, Emacs and a copy that was cut short leave."""
    trust = place.world.trust_dir
    for name in ("._b.example.pem", ".pem", ".b.example.pem"):
        (trust / name).write_bytes(b"\0")
    (trust / ".#x.pem").symlink_to("nobody@nowhere:1")
    provider = Provider(load_settings(place.config))
    await provider.start()
    await provider.close()
    assert set(TrustAnchors.from_directory(trust).roots) == {"a.example", "b.example", "c.example"}


# --- keys and databases ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_tls_key_that_others_may_read_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = place.directory / "tls-key.pem"
    path.chmod(mode)
    assert "readable by others; expected mode 640 or less: " in serve(place, monkeypatch)


async def test_everything_that_is_kept_is_kept_from_others(place: Place) -> None:
    old = place.directory / "data" / "hub.sqlite"
    old.touch(0o644)
    old.chmod(0o644)
    provider = Provider(load_settings(place.config))
    try:
        await provider.start()
        files = [path for path in (place.directory / "data").rglob("*") if path.is_file()]
        names = {path.name for path in files}
        assert {"hub.sqlite", "accounts.sqlite", "deliveries.sqlite", "accounts.sqlite-wal"} <= names
        for path in files:
            assert path.stat().st_mode & 0o007 == 0, path
        for path in files:
            if path.name.startswith(("accounts.sqlite", "deliveries.sqlite")):
                assert path.stat().st_mode & 0o777 == 0o600, path
    finally:
        await provider.close()


BAD_DATABASES = {
    "a directory": ("sqlite:///data", "data is a directory; expected a file"),
    "no directory": ("sqlite:///nowhere/hub.sqlite", "there is no directory nowhere"),
    "no database": ("sqlite:///config.toml", "config.toml is not a SQLite database"),
    "nobody there": (f"postgresql://me:{SECRET}@127.0.0.1:1/hub", "hub at 127.0.0.1:1"),
}


@pytest.mark.parametrize("what", BAD_DATABASES)
def test_a_database_that_can_not_be_opened_is_named_by_its_place(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    url, said = BAD_DATABASES[what]
    place.put_first(f'database = {{hub = "{url}"}}')
    found = serve(place, monkeypatch)
    assert found.startswith("database.hub: ")
    assert found.endswith(said)


# --- peers -------------------------------------------------------------------------------------------


async def test_a_provider_without_peers_warns(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(place.config).model_copy(update={"peers": {}})
    provider = Provider(settings)
    try:
        await provider.start()
    finally:
        await provider.close()
    assert [record.levelname for record in caplog.records if "no peers" in record.message] == ["WARNING"]


# --- one process a directory -------------------------------------------------------------------------


async def test_a_second_provider_on_the_same_sqlite_files_is_refused_with_the_reason(place: Place) -> None:
    settings = load_settings(place.config)
    first, second, third = (Provider(settings) for _ in range(3))
    await first.start()
    try:
        with pytest.raises(ConfigError) as refused:
            await second.start()
        said = str(refused.value)
        assert said.startswith("database.hub: ")
        assert f"is in use by another process ({os.getpid()}); stop that one first" in said
    finally:
        await second.close()
        await first.close()
    await third.start()
    await third.close()


HOLDER = """
import sys, time
from pathlib import Path
from mimi_mmr.provider.databases import hold_databases
from mimi_mmr.provider.settings import load_settings
with hold_databases(load_settings(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_no_lock(place: Place) -> None:
    settings = load_settings(place.config)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place.config)], stdout=subprocess.PIPE, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="in use by another process"), hold_databases(settings):
            pass
        process.kill()
        process.wait()
        with hold_databases(settings):
            assert (settings.data_dir / "hub.sqlite.lock").stat().st_mode & 0o777 == 0o600


def test_a_postgresql_database_is_for_several_processes(place: Place) -> None:
    urls = ", ".join(f'{role} = "postgresql://h/{role}"' for role in ROLES)
    place.put_first(f"database = {{{urls}}}")
    settings = load_settings(place.config)
    with hold_databases(settings), hold_databases(settings):
        assert not list(settings.data_dir.glob("*.lock"))
