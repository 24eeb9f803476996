"""The hub's download proxy (draft-ietf-mimi-protocol, "Download Files")."""

from __future__ import annotations

from ohttp_relay.download.proxy import PREFIX, DownloadLimits, DownloadProxy

__all__ = ["PREFIX", "DownloadLimits", "DownloadProxy"]
