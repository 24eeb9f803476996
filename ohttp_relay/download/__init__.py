"""The hub's download proxy (draft-ietf-mimi-protocol, "Download Files").

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.download.proxy import PREFIX, DownloadLimits, DownloadProxy

__all__ = ["PREFIX", "DownloadLimits", "DownloadProxy"]
