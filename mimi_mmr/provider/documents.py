"""Documents that a provider publishes for everybody: its keys, those of its peers, and where its endpoints are."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from mimi_mmr.protocol.endpoints import (
    DIRECTORY,
    DOWNLOAD_ASSET,
    KEY_MATERIAL,
    NOTIFY,
    PROVIDER_KEYS,
    PROVIDERS,
    SUBMIT_MESSAGE,
    UPDATE_ROOM,
    Endpoint,
)
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderList
from mimi_mmr.provider.http import Call, Router
from mimi_mmr.provider.peers import Peers
from ohttp_relay.gateway import DEFAULT_PATH as GATEWAY_PATH


class DocumentService:
    """Documents of one provider domain."""

    def __init__(self, domain: str, base_url: str, peers: Peers) -> None:
        """Publish the documents that `peers` holds, and the endpoints of `domain`, whose base URL is `base_url`."""
        self._domain = domain
        self._base_url = base_url
        self._peers = peers

    def mount_direct(self, router: Router) -> None:
        """Mount the signed documents."""
        router.serve(PROVIDER_KEYS, self.keys)
        router.serve(PROVIDERS, self.providers)

    def routes(self) -> list[web.RouteDef]:
        """Return the route of the directory (JSON)."""
        return [web.get(DIRECTORY.template, self.directory)]

    async def keys(self, _: Call[None, None]) -> ProviderKeys:
        """Return this provider's signed keys."""
        return self._peers.own

    async def providers(self, _: Call[None, None]) -> ProviderList:
        """Return the signed keys of every provider that this one knows."""
        return ProviderList(tuple(await self._peers.documents()))

    async def directory(self, _: web.Request) -> web.Response:
        """Return the endpoints' URLs (-06, "Directory"); endpoints that this project does not use answer 404."""
        document = {
            "keyMaterial": self._out_of_gateway(KEY_MATERIAL, "{provider}"),
            "update": self._out_of_gateway(UPDATE_ROOM, "{roomId}"),
            "notify": self._base_url + NOTIFY.template,
            "submitMessage": self._out_of_gateway(SUBMIT_MESSAGE, "{roomId}"),
            "proxyDownload": self._out_of_gateway(DOWNLOAD_ASSET, "{downloadUrl}"),
            "obliviousGateway": self._base_url + GATEWAY_PATH,
        }
        return web.Response(body=json.dumps(document), content_type="application/json")

    def _out_of_gateway(self, endpoint: Endpoint[Any, Any], name: str) -> str:
        """Return the URL of an endpoint that clients call in a capsule, with the draft's placeholder name."""
        (ours,) = endpoint.names
        return f"https://{self._domain}{endpoint.template.replace(f'{{{ours}}}', name)}"
