"""What the page for operators says of settings and of stopping is what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mimi_mmr.app.cli import app
from mimi_mmr.provider import run
from mimi_mmr.provider.settings import (
    AssetHostSettings,
    Settings,
    every,
    load_settings,
    settings_table,
    variable,
)
from tests.mimi_mmr.provider.settings.settings_world import SECRET, Place

RUN = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("kind", [Settings, AssetHostSettings])
def test_every_setting_is_in_its_table(kind: type[Settings] | type[AssetHostSettings]) -> None:
    table = settings_table(kind)
    assert table in RUN, "paste what `mimi-mmr settings` prints"
    printed = CliRunner().invoke(app, ["settings"])
    assert printed.exit_code == 0
    assert table in printed.stdout
    settings = list(every(kind))
    assert {setting.name.partition(".")[0] for setting in settings} == set(kind.model_fields)
    assert all(setting.description for setting in settings)


def test_variables_are_named_as_they_are_read() -> None:
    assert variable(Settings, "tls.key") == "MIMI_MMR_TLS__KEY"
    assert variable(AssetHostSettings, "upload_token") == "MIMI_MMR_ASSETS_UPLOAD_TOKEN"
    known = {variable(Settings, setting.name) for setting in every(Settings)} | {"MIMI_MMR_ASSETS_"}
    assert set(re.findall(r"MIMI_MMR_\w+", RUN)) <= known


def test_the_settings_that_are_shown_are_good(place: Place) -> None:
    block, _ = re.findall(r"```toml\n(.*?)```", RUN, re.DOTALL)
    block = re.sub(r"^# (\w+ = )", r"\1", block, flags=re.MULTILINE).replace("…", SECRET)
    for name in ("certificate", "key", "ca"):
        block = re.sub(rf'^{name} = ".*?"', f'{name} = "tls-key.pem"', block, flags=re.MULTILINE)
    tomllib.loads(block)
    place.config.write_text(block)
    (place.directory / "trust").symlink_to(place.world.trust_dir)
    settings = load_settings(place.config)
    assert settings.peers == {"a.example": "https://mimi.a.example"}
    assert settings.asset_host is not None
    assert settings.asset_host.networks == ("10.0.0.0/8",)
    for table in ("database", "asset_host"):  # which "may be left out"
        place.config.write_text(re.sub(rf"\[{table}\].*?(?=\n\[|\Z)", "", block, flags=re.DOTALL))
        load_settings(place.config)


def test_a_stop_takes_as_long_as_it_says() -> None:
    assert f"after {run.STOP_SECONDS:.0f} s at most the process has ended" in " ".join(RUN.split())
    assert f"to another provider after {run.RELAYED_SECONDS:.0f} s" in " ".join(RUN.split())


def test_lines_are_short() -> None:
    assert [line for line in RUN.splitlines() if len(line) > 140] == []
