"""Assets: encrypted files, which lie on a provider's asset host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.presentation import Struct, Text

MAX_ASSET = 64 << 20


@dataclass(frozen=True, slots=True)
class AssetLocation(Struct):
    """Where an asset was put."""

    url: Annotated[str, Text(1024)]
