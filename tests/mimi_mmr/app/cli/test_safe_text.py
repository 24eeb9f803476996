"""What people type reaches a terminal as it is; what hides, reorders or commands does not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimi_mmr.app.cli.safe_text import MAX_MARKS, REPLACEMENT, safe

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
TYPED = {
    "letters": "grüße, 你好, שלום, مرحبا, e\u0301",
    "emoji with joiners": "👩\u200d🚀, 🏳️\u200d🌈, 👨\u200d👩\u200d👧\u200d👦, ❤️",
    "a keycap": "1\ufe0f\u20e3",
    "flags of tag characters": f"{ENGLAND}!",
    "a right-to-left mark": "C++\u200f שלום",
    "a left-to-right mark": "שלום \u200eC++",
    "an Arabic letter mark": "\u061c12 مرحبا",
    "isolates": "a \u2067\u05e9\u05dc\u05d5\u05dd \u2066x\u2069\u2069 b \u2068?\u2069",
    "a phone number in an embedding": "\u202a+49 30 1234\u202c",
    "a soft hyphen": "Donau\u00addampf",
    "a joiner of Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "word breaks of Khmer": "ក\u200bខ",
    "a Mongolian selector": "\u182d\u180b",
    "an Arabic sign of the end of a verse": "\u06dd\u0661",
    "pointed Hebrew": "שׁ\u05bc\u05b8\u0591",
    "stacked Tibetan": "རྡྷྱ\u0f7e",
    "emoji of a newer Unicode": "\U0001faea\U0001fae9",
    "Windows and old Mac paths": "C:\\path [not markup]",
}
HIDDEN = {
    "an override": "\u202egnp.exe",
    "an override with its end": "\u202dabc\u202c",
    "an isolate without its end": "a\u2067b",
    "an end without its isolate": "a\u2069b",
    "an isolate that ends in another line": "a\u2067b\nc\u2069",
    "an end of another kind": "\u2066a\u202c",
    "a Hangul filler": "a\u3164b",
    "a Hangul filler of another width": "\uffa0",
    "an old Hangul filler": "\u115f\u1160",
    "an unassigned ignorable": "a\u2065b",
    "unassigned specials": "a\ufff0b",
    "an unassigned tag": "a\U000e0fffb",
    "tags after a letter": "a\U000e0061\U000e0062\U000e007f",
    "a flag without its end": ENGLAND[:-1],
    "a joiner in a Latin name": "ali\u200dce",
    "a joiner in nothing": "a \u200d b",
    "a soft hyphen between words": "a\u00ad b",
    "a selector without effect": "a\ufe0f",
    "a second selector": "❤\ufe0f\ufe0f",
    "a word joiner": "a\u2060b",
    "a byte order mark": "a\ufeffb",
    "an invisible operator": "2\u2062x",
    "an escape sequence": "\x1b[2J",
    "a C1 control": "\x9b2J",
    "a bell and a null": "\x07\x00",
    "a backspace": "a\x08b",
    "a private character": "\ue000",
    "a noncharacter": "\ufdd0\U0001fffe",
    "an annotation": "\ufff9a\ufffab\ufffb",
}


@pytest.mark.parametrize("text", TYPED.values(), ids=TYPED)
def test_what_people_type_is_left_alone(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_what_hides_or_reorders_text_is_replaced(text: str) -> None:
    left = safe(text)
    assert REPLACEMENT in left
    assert not set(left) & {letter for letter in text if unicodedata.category(letter) == "Cf"}
    assert len(left) == len(text)


def test_of_joiners_in_a_row_one_is_left() -> None:
    assert safe("\u0646\u200c\u200c\u200d") == "\u0646\u200c" + 2 * REPLACEMENT


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n", "\x85", "\u2028", "\u2029"])
def test_a_line_break_of_any_system_is_one_newline(end: str) -> None:
    assert safe(f"two{end}lines{end}") == "two\nlines\n"


def test_200_accents_on_one_letter_are_a_few() -> None:
    assert safe("a" + "\u0301" * 200 + "b") == "a" + "\u0301" * MAX_MARKS + REPLACEMENT + "b"
    for invisible in ("\u200c", "\u200f"):  # does not begin another letter
        assert safe("\u05d0" + f"{chr(0x5B8)}{invisible}" * 100).count("\u05b8") <= MAX_MARKS
    assert len(safe("\u1100" + "\u1161\u11a8" * 100)) < 20  # Hangul vowels are drawn over each other, too


@given(st.text())
def test_what_is_safe_stays_as_it_is_and_can_be_written(text: str) -> None:
    left = safe(text)
    assert safe(left) == left
    left.encode()


@given(st.text(st.sampled_from("a \u05d0\u2066\u2067\u2068\u2069\u202a\u202b\u202c\u202d\u202e\n\u200f")))
def test_no_text_changes_the_direction_of_what_follows_it(text: str) -> None:
    for line in safe(text).split("\n"):
        opened = [letter for letter in line if letter in "\u2066\u2067\u2068\u202a\u202b"]
        assert len(opened) == sum(letter in "\u2069\u202c" for letter in line)
        assert not set(line) & set("\u202d\u202e")
