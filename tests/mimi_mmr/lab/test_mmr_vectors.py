"""The published vectors are what the code makes, and the code reads them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.lab.vectors import all_structs, describe, vectors
from mimi_mmr.protocol.room.join_links import JoinLink
from mimi_mmr.protocol.room.members_only import StateSecret, open_state
from mimi_mmr.uris import MimiUri
from tests.fixtures import stored

FILE = Path(__file__).parents[2] / "vectors" / "mimi_mmr.json"
PUBLISHED = json.loads(FILE.read_text())
STRUCTS = {kind.__name__: kind for kind in all_structs()}
OLD = json.loads((stored.V0 / "vectors.json").read_text())
RENAMED = {"SavedInbox": "SavedReadQueue", "SavedJoined": "SavedMembership"}
CHANGED = {  # both ends read another form since
    *("QueuePage", "PeerRequest", "PeerRequestTBS"),
    *(
        "UpdateRequest",
        "SavedJoined",
        "WelcomeEvent",
        "ApplicationEvent",
        "SubmitTBS",
        "SubmitMessageRequest",
    ),
}


def test_the_file_is_what_the_command_makes() -> None:
    assert json.loads(json.dumps(vectors())) == PUBLISHED


def test_every_struct_has_a_vector() -> None:
    assert set(PUBLISHED["structs"]) == set(STRUCTS)


@pytest.mark.parametrize("name", sorted(PUBLISHED["structs"]))
def test_the_encoding_is_read_as_the_fields(name: str) -> None:
    vector = PUBLISHED["structs"][name]
    value = STRUCTS[name].from_bytes(bytes.fromhex(vector["encoding"]))
    assert json.loads(json.dumps(describe(value))) == vector["fields"]
    assert value.to_bytes().hex() == vector["encoding"]


@pytest.mark.parametrize("name", sorted(set(OLD["structs"]) - CHANGED))
def test_what_version_0_wrote_is_read_and_written_in_the_same_bytes(name: str) -> None:
    vector = OLD["structs"][name]
    value = STRUCTS[RENAMED.get(name, name)].from_bytes(bytes.fromhex(vector["encoding"]))
    assert json.loads(json.dumps(describe(value))) == vector["fields"]
    assert value.to_bytes().hex() == vector["encoding"]


@pytest.mark.parametrize("published", [PUBLISHED, OLD], ids=["today", "version 0.1.0"])
def test_a_published_link_and_state_open(published: dict[str, Any]) -> None:
    link = JoinLink.parse(published["derivations"]["join_link"]["uri"])
    assert link.id.hex() == published["derivations"]["join_link"]["id"]
    state = published["derivations"]["members_only_state"]
    secret = StateSecret(bytes.fromhex(state["room_secret"]))
    opened = open_state(bytes.fromhex(state["sealed"]), secret, MimiUri.parse(state["room"]))
    assert (opened.name, opened.topic) == ("Tea", "Thursdays")
