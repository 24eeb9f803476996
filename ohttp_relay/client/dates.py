"""The Date inside a request, and its one correction (RFC 9458, sections 6.5.1 and 6.5.2)."""

from __future__ import annotations

from ohttp_relay.bhttp.message import Request
from ohttp_relay.transport import problems
from ohttp_relay.transport.dates import format_date, parse_date
from ohttp_relay.transport.http import media_type


def dated(request: Request, now: float) -> Request:
    """Return the request with a Date field; `now` in seconds since 1970."""
    return request._replace(fields=(*request.fields, ("date", format_date(now))))


def may_correct(status: int, content_type: str | None) -> bool:
    """Tell whether a response may carry a correction of the date."""
    return 400 <= status < 500 and media_type(content_type) == problems.MEDIA_TYPE


def corrected_date(content_type: str | None, content: bytes, date: str | None) -> float | None:
    """Return the gateway's date in seconds since 1970; None if it did not refuse the request for its Date."""
    if problems.decode_problem(content_type, content) != problems.DATE:
        return None
    return parse_date(date or "")
