"""Text of other people, made safe for a terminal: what people type stays, what hides or reorders text is replaced.

Sources: UAX #9 for controls of the writing direction, UTS #51 (ED-14a) for flags made of tag characters, UTS #39
(section 5.4) for marks on one letter, DerivedCoreProperties.txt of Unicode 14 for default-ignorable code points.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

REPLACEMENT = "\ufffd"
MAX_MARKS = 8  # marks on one letter: pointed Hebrew and Tibetan need about six
MAX_DEPTH = 4  # of directional isolates in each other

_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_DIRECTION_MARKS = "\u200e\u200f\u061c"
_OPENING = {
    **dict.fromkeys("\u2066\u2067\u2068", "\u2069"),  # isolates
    **dict.fromkeys("\u202a\u202b", "\u202c"),  # embeddings, which phones put around numbers
}
_CLOSING = frozenset(_OPENING.values())
_SOFT_HYPHEN = "\u00ad"
_JOINERS = "\u200b\u200c\u200d"  # of many scripts, and of emoji
_SELECTORS = re.compile("[\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # and the grapheme joiner
_MONGOLIAN, _MONGOLIAN_SELECTORS = re.compile("[\u1800-\u18af]"), "\u180b\u180c\u180d\u180e\u180f"
_KEYCAPS = "0123456789#*"
# England, Scotland, Wales and the like: a black flag, a region's code in tag characters, and the end of the tag.
_TAGS = re.compile(
    "\U0001f3f4[\U000e0061-\U000e007a]{2}[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,4}\U000e007f"
    "|[\U000e0000-\U000e007f]"
)
# The signs that Arabic, Syriac and Kaithi write before a number: format characters which are visible.
_VISIBLE_FORMAT = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_CONJOINING = re.compile(
    "[\u1160-\u11ff\ud7b0-\ud7ff]"
)  # Hangul vowels and finals, drawn onto the letter before


def safe(text: str) -> str:
    """Return text that shows what it is: a line break is a newline, and U+FFFD stands for what may deceive.

    Replaced are control characters, private and unassigned invisible characters, overrides of the direction,
    isolates and embeddings without their end in the same line, invisible characters where they have no effect on
    their neighbours, and all but the first marks of a letter.
    """
    return "\n".join(map(_safe_line, _LINE_END.split(text)))


def _safe_line(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    tagged = _TAGS.sub(lambda found: found[0] if len(found[0]) > 1 else REPLACEMENT, line.replace("\t", " "))
    spaced = f" {tagged} "
    fitting = (
        letter if _fits(letter, spaced[place], spaced[place + 2]) else REPLACEMENT
        for place, letter in enumerate(tagged)
    )
    return _balanced("".join(_few_marks("".join(fitting))))


def _fits(letter: str, before: str, after: str) -> bool:
    """Return whether a character is visible, or has an effect between its neighbours."""
    if letter == _SOFT_HYPHEN:
        return before.isalnum() and after.isalnum()
    if letter in _JOINERS:
        return _can_carry(before)
    if letter in _MONGOLIAN_SELECTORS:
        return bool(_MONGOLIAN.match(before)) and before not in _MONGOLIAN_SELECTORS
    if _SELECTORS.match(letter):
        return before in _KEYCAPS or (_can_carry(before) and not _SELECTORS.match(before))
    if letter in _DIRECTION_MARKS or letter in _OPENING or letter in _CLOSING or _is_tag(letter):
        return True  # tags were checked before, pairs will be
    return _is_visible(letter)


def _can_carry(letter: str) -> bool:
    """Return whether an invisible character after this one may change how it looks."""
    return not letter.isascii() and not letter.isspace() and unicodedata.category(letter) != "Cf"


def _is_tag(letter: str) -> bool:
    return "\U000e0020" <= letter <= "\U000e007f"


def _is_visible(letter: str) -> bool:
    kind, number = unicodedata.category(letter), ord(letter)
    if kind in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return bool(_VISIBLE_FORMAT.match(letter))
    is_character = number & 0xFFFE != 0xFFFE and not 0xFDD0 <= number <= 0xFDEF
    return is_character and not _IGNORABLE.match(letter)  # an unassigned one may be of a newer Unicode


def _few_marks(line: str) -> Iterator[str]:
    for is_mark, run in groupby(line, _is_mark):
        letters = "".join(run)
        yield letters[:MAX_MARKS] + REPLACEMENT if is_mark and len(letters) > MAX_MARKS else letters


def _is_mark(letter: str) -> bool:
    """Return whether this is drawn onto the letter before, or invisible, so that it does not end a run of marks."""
    return unicodedata.category(letter) in ("Mn", "Me", "Cf") or bool(_CONJOINING.match(letter))


def _balanced(line: str) -> str:
    """Replace each isolate and embedding that has no end in this line, and each end without a beginning."""
    letters, opened = list(line), list[int]()
    for place, letter in enumerate(letters):
        if letter in _OPENING and len(opened) < MAX_DEPTH:
            opened.append(place)
        elif letter in _CLOSING and opened and _OPENING[letters[opened[-1]]] == letter:
            opened.pop()
        elif letter in _OPENING or letter in _CLOSING:
            letters[place] = REPLACEMENT
    for place in opened:
        letters[place] = REPLACEMENT
    return "".join(letters)
