"""Whose clock is off: said only where the dates of the parties show it."""

from __future__ import annotations

from email.utils import formatdate

from mimi_mmr.client.transport.clock_check import LONGEST_ANSWER, MAX_PARTIES, ClockCheck

NOW = 1_800_000_000.25


def check(**ahead: float) -> ClockCheck:
    """What a device finds whose clock is this much ahead of each party's."""
    made = ClockCheck(lambda: NOW, lambda: 7.0)
    for name, offset in ahead.items():
        made.note(f"{name}.example", formatdate(NOW - offset, usegmt=True), NOW - 0.1, NOW + 0.1)
    return made


def test_clocks_within_a_minute_are_not_worth_a_word() -> None:
    assert check().finding() == ""
    assert check(a=58.0, b=-2.0).finding() == ""


def test_two_parties_that_agree_say_that_this_clock_is_off() -> None:
    assert (
        check(a=75.0, b=90.0).finding()
        == "this device's clock is 82 seconds ahead of a.example's and b.example's"
    )
    assert (
        check(a=-600.0, b=-601.0).finding()
        == "this device's clock is 10 minutes behind a.example's and b.example's"
    )


def test_one_party_alone_may_be_the_one_that_is_off() -> None:
    assert (
        check(a=300.0).finding()
        == "this device's clock is 5 minutes ahead of a.example's: one of the two is off"
    )


def test_parties_that_disagree_are_named_one_by_one() -> None:
    finding = check(a=0.0, b=600.0).finding()
    assert "10 minutes ahead of b.example's" in finding
    assert "do not agree" in finding


def test_a_slow_answer_or_one_without_a_sound_date_says_nothing() -> None:
    made = ClockCheck(lambda: NOW, lambda: 7.0)
    date = formatdate(NOW - 900, usegmt=True)
    made.note("a.example", date, NOW - LONGEST_ANSWER - 1, NOW)
    made.note("a.example", date, NOW, NOW - 5)  # the clock was set meanwhile
    for bad in (None, "", "yesterday", "Thu, 99 Jan 99999 00:00:00 GMT"):
        made.note("a.example", bad, NOW, NOW)
    assert not made.ahead


def test_what_was_found_before_the_clock_was_set_is_forgotten() -> None:
    now, running = [NOW], [7.0]
    made = ClockCheck(lambda: now[0], lambda: running[0])
    made.note("a.example", formatdate(NOW - 300, usegmt=True), NOW, NOW)
    now[0], running[0] = NOW + 60, 67.0
    assert "5 minutes ahead" in made.finding()
    now[0] -= 300
    assert made.finding() == ""
    made.note("b.example", formatdate(now[0], usegmt=True), now[0], now[0])
    assert made.ahead.keys() == {"b.example"}


def test_only_so_many_parties_are_kept() -> None:
    many = check(**{f"p{number}": 0.0 for number in range(MAX_PARTIES + 3)})
    assert len(many.ahead) == MAX_PARTIES
    assert "p0.example" not in many.ahead
