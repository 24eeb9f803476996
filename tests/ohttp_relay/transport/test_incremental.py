"""The Incremental field."""

from __future__ import annotations

import pytest

from ohttp_relay.transport.http import is_incremental


@pytest.mark.parametrize(
    ("field", "streams"),
    [
        ("?1", True),
        ("?1;a=b", True),
        (" ?1 ", True),
        ("?0", False),
        ("1", False),
        ("true", False),
        (None, False),
    ],
)
def test_the_incremental_field(field: str | None, streams: bool) -> None:
    assert is_incremental(field) == streams
