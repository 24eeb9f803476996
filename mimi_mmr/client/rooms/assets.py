"""Files in rooms: encrypted, put on an asset host, and fetched without the host learning who fetches."""

from __future__ import annotations

import hashlib

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.client.storage.history import Message
from mimi_mmr.errors import InvalidUri, NotAllowed
from mimi_mmr.protocol.content import AssetReference, Content, ContentKind, seal_asset
from mimi_mmr.protocol.endpoints import PUT_ASSET
from mimi_mmr.uris import https_origin


class Assets:
    """The files in this client's rooms."""

    def __init__(self, context: Context, sending: Sending) -> None:
        self._context = context
        self._sending = sending

    async def send(self, membership: Membership, name: str, data: bytes) -> AssetReference:
        """Encrypt a file, upload it to the user's own provider's asset host, and send the room its reference."""
        key, ciphertext = seal_asset(data)
        domain = self._context.user.domain
        url = (await self._context.path.ask(PUT_ASSET, domain, ciphertext)).url
        reference = AssetReference(url, name, len(data), key, hashlib.sha256(ciphertext).digest())
        await self._sending.send(membership, Content(ContentKind.ASSET, reference.to_bytes()))
        return reference

    async def fetch(self, membership: Membership, message: Message) -> bytes:
        """Download a file through relay, gateway and the hub's proxy, only from its sender's asset host."""
        reference = AssetReference.from_bytes(message.content.body)
        provider = await self._context.path.provider(message.sender.user.domain)
        if not _is_at(reference.url, provider.asset_origin):
            raise NotAllowed("the asset is not on the asset host of its sender's provider")
        return reference.open(await self._context.path.download(membership.uri.domain, reference.url))


def _is_at(url: str, origin: str) -> bool:
    """Return whether a URL is one of an asset at an origin, however the two are spelt."""
    _, _, path = url.partition("://")[2].partition("/")
    try:
        return bool(path) and https_origin(url, with_path=True) == https_origin(origin)
    except InvalidUri:
        return False
