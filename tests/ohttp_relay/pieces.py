"""Bytes split anywhere."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


cuts = st.lists(st.integers(0, 10_000), max_size=8)
