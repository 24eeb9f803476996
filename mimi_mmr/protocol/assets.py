"""Assets: encrypted files on a provider's asset host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.presentation import Struct, Text

MAX_ASSET = 64 << 20


@dataclass(frozen=True, slots=True)
class AssetLocation(Struct):
    """The location of a stored asset."""

    url: Annotated[str, Text(1024)]
