"""HTTP dates (RFC 9110, section 5.6.7)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache


def format_date(now: float) -> str:
    """Return an HTTP date of `now`, seconds since 1970."""
    return format_datetime(datetime.fromtimestamp(int(now), UTC), usegmt=True)


@lru_cache(maxsize=256)  # most requests of one second have the same Date
def parse_date(text: str) -> float | None:
    """Return seconds since 1970 of an HTTP date; None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
