"""What `make dist` builds is installed into an empty environment, and runs there without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATIENCE = 300
PACKAGES = ("mimi_mmr", "ohttp_relay", "treewrap")

# Opens a provider's databases as `serve` does.
DATABASES = """
import asyncio, sys
from pathlib import Path
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database

async def main():
    for role, metadata in tables.ROLES.items():
        url = f"sqlite:///{Path.cwd() / role}.sqlite"
        await (await Database.open(url, metadata)).close()
        print(role, await Database.recorded_schema(url, metadata) == Database.latest_schema(metadata))

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path) -> str:
    """A command's output; without this process's Python settings, and in another directory than the checkout."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with an sdist and a wheel, which was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


def test_the_wheel_holds_the_packages_their_types_and_every_revision_of_the_schemas(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert {name.split("/")[0] for name in names} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    sources = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def test_the_sdist_holds_what_the_tests_need(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = ("Makefile", "LICENSE", "tests/fixtures/v0/providers/a.example/hub.sqlite", ".ci/run")
    assert set(expected) <= names
    assert not {name for name in names if name.startswith((".venv", "dist/", "build/"))}


@pytest.mark.nightly
def test_the_wheel_works_in_an_empty_environment(dist: Path, tmp_path: Path) -> None:
    """One test, since an environment takes long to make: it holds the wheel, what it depends on, and no more."""
    (wheel,) = dist.glob("*.whl")
    place, here = tmp_path / "environment", tmp_path / "here"
    here.mkdir()
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    install = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile", wheel)
    run(python, *install, cwd=here)

    imports = "import treewrap, ohttp_relay, mimi_mmr; print(mimi_mmr.__file__)"
    assert run(python, "-c", imports, cwd=here).startswith(str(place))
    assert "| `data_dir` |" in run(place / "bin" / "mimi-mmr", "settings", cwd=here)
    assert "usage" in run(place / "bin" / "ohttp-relay", "--help", cwd=here).lower()
    assert run(python, "-c", DATABASES, cwd=here).split() == [
        *("hub", "True", "accounts", "True", "deliveries", "True")
    ]
    assert "Nobody saw what they must not see." in run(place / "bin" / "mimi-mmr", "demo", cwd=here)
