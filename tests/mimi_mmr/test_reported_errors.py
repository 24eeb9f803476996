"""What a server reports comes back as the class it was, and nothing else does."""

from __future__ import annotations

import pytest

from mimi_mmr.errors import CODES, JoinRefused, PeerError, WrongEpoch, from_code


def test_every_error_that_may_be_reported_comes_back() -> None:
    for code, kind in CODES.items():
        assert type(from_code(code, "why")) is kind
    assert CODES["join-refused"] is JoinRefused


def test_the_epoch_comes_back_with_the_error() -> None:
    error = from_code(WrongEpoch.code, str(WrongEpoch(7)))
    assert isinstance(error, WrongEpoch)
    assert (error.current_epoch, str(error)) == (7, "the room is in epoch 7")


@pytest.mark.parametrize(
    "words",
    ["", "7", "the room is in epoch ", "the room is in epoch x", "the room is in epoch \u0667", "epoch 7"],
)
def test_other_words_are_the_peers_own(words: str) -> None:
    assert type(from_code(WrongEpoch.code, words)) is PeerError


@pytest.mark.parametrize("code", ["", "error", "room", "mls", "desynchronised", "no such code"])
def test_what_a_server_may_not_report_is_its_own_word(code: str) -> None:
    assert type(from_code(code, "why")) is PeerError
