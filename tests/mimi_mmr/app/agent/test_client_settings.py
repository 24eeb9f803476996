"""What an agent keeps of trust anchors: their content; a home of version 0.1.0 has paths, which are read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mimi_mmr.app.agent.client_settings import ClientSettings, slot
from mimi_mmr.app.commands.context import Anchors
from mimi_mmr.errors import ConfigError
from tests.fixtures import stored

TRUST = stored.V0 / "trust"


def old_row(trust: Path, tls_ca: Path | None) -> bytes:
    """What version 0.1.0 stored."""
    paths = {"trust_dir": str(trust), "tls_ca": str(tls_ca) if tls_ca else None, "key_package_slot": 5.0}
    return json.dumps(paths).encode()


def test_the_files_of_an_old_home_are_read_and_then_not_needed() -> None:
    settings = ClientSettings.from_row(old_row(TRUST, TRUST / "a.example.pem"))
    again = ClientSettings.from_row(settings.to_row())
    assert again == settings
    assert str(TRUST).encode() not in again.to_row()
    assert set(again.trust().roots) == {"a.example", "b.example", "c.example"}
    assert again.tls().cert_store_stats()["x509_ca"] == 1
    assert slot(settings.to_row()) == slot(old_row(TRUST, None)) == 5.0


def test_an_old_home_whose_files_are_gone_says_which(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        ClientSettings.from_row(old_row(tmp_path, None))
    with pytest.raises(ConfigError, match="gone"):
        ClientSettings.from_row(old_row(TRUST, tmp_path / "gone"))


def test_what_is_no_certificate_is_said_by_its_option() -> None:
    with pytest.raises(ConfigError, match="--tls-ca"):
        ClientSettings(Anchors({}, "no certificate")).tls()
    with pytest.raises(ConfigError, match=r"--trust: expected <domain>\.pem"):
        ClientSettings(Anchors({}, None)).trust()
