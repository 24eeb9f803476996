"""How far this device's clock is from those of the providers that it connects to, by the Date of their answers.

Only answers that come anyway are looked at: those of the user's own provider and of a relay, over TLS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from statistics import median

TOLERANCE = 60.0  # seconds
STEP = 1.0  # seconds; a larger jump against the monotonic clock means that the clock was set
LONGEST_ANSWER = 30.0  # seconds; a slower answer says too little
MAX_PARTIES = 16


class ClockCheck:
    """The latest difference of this device's clock to each provider's, in seconds.

    Differences from before this device's clock was set are forgotten.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        """Compare with `clock`, which gives seconds since 1970; `monotonic` shows when that was set."""
        self._clock = clock
        self._monotonic = monotonic
        self._setting = clock() - monotonic()
        self._ahead: dict[str, float] = {}

    @property
    def ahead(self) -> Mapping[str, float]:
        """By how much this device's clock is ahead of each provider's, by domain."""
        self._forget_if_set()
        return dict(self._ahead)

    def _forget_if_set(self) -> None:
        setting = self._clock() - self._monotonic()
        if abs(setting - self._setting) > STEP:
            self._ahead.clear()
        self._setting = setting

    def note(self, domain: str, date: str | None, asked: float, answered: float) -> None:
        """Note the Date of an answer, with this device's times of the request and of the answer."""
        if date is None or not 0 <= answered - asked <= LONGEST_ANSWER:
            return
        try:
            theirs = parsedate_to_datetime(date).timestamp() + 0.5  # a Date is in whole seconds
        except (ValueError, OverflowError):
            return
        self._forget_if_set()
        self._ahead.pop(domain, None)
        self._ahead[domain] = (asked + answered) / 2 - theirs
        if len(self._ahead) > MAX_PARTIES:
            del self._ahead[next(iter(self._ahead))]

    def finding(self) -> str:
        """Say whose clock is off by more than a minute, for a person; "" if none is."""
        ahead = self.ahead
        if all(abs(offset) <= TOLERANCE for offset in ahead.values()):
            return ""
        names, offsets = sorted(ahead), list(ahead.values())
        if max(offsets) - min(offsets) > TOLERANCE:
            each = ", ".join(f"{_span(ahead[name])} {name}'s" for name in names)
            return f"this device's clock is {each}: they do not agree on whose clock is off"
        theirs = " and ".join(f"{name}'s" for name in names)
        said = f"this device's clock is {_span(median(offsets))} {theirs}"
        return said if len(names) > 1 else f"{said}: one of the two is off"


def _span(ahead: float) -> str:
    seconds = round(abs(ahead))
    length = f"{seconds} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"
    return f"{length} {'ahead of' if ahead > 0 else 'behind'}"
