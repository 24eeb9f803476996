"""Other providers: their signed keys, and signed requests to and from them."""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import (
    BodyTooLarge,
    CertificateRejected,
    MmrError,
    ParseError,
    PeerError,
    PeerRefused,
    SignatureRejected,
    Unauthorized,
)
from mimi_mmr.protocol.endpoints import PROVIDER_KEYS, Endpoint, ProviderRole
from mimi_mmr.protocol.peers import PEER_SCHEME, PeerRequest, PeerRequestTBS, sign_peer_request
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderKeysTBS
from mimi_mmr.provider.http import Admission, Arrival
from mimi_mmr.provider.record import Recorder
from ohttp_relay.errors import OhttpError
from ohttp_relay.transport import AUTO_HEADERS, cause_of, read_limited

CLOCK_SKEW = 300
MAX_ANSWER = 1 << 22
REFRESH_SECONDS = 600.0
DOCUMENT_SECONDS = 5.0
SILENT_SECONDS = 30.0
CONNECTIONS_PER_PEER = 16
# These answers concern the request itself; a retry may succeed after any other error.
REFUSALS = (400, 403, 404, 409, 413)

log = logging.getLogger(__name__)


class Peers:
    """Other providers by domain. Only what is signed under a provider's CA is trusted."""

    def __init__(
        self,
        domain: str,
        urls: Mapping[str, str],
        trust: TrustAnchors,
        key: SigningKey,
        *,
        ssl_context: ssl.SSLContext | None,
        source_address: str | None = None,
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Know peers at `urls` (domain -> base URL); sign as `domain` with `key`."""
        self.domain = domain
        self.urls = dict(urls)
        self._trust = trust
        self._key = key
        self._recorder = recorder
        self._clock = clock
        self._own: ProviderKeys | None = None
        self._known: dict[str, tuple[float, ProviderKeys]] = {}
        self._signers: dict[str, bytes] = {}
        self._silent: dict[str, float] = {}
        local = (source_address, 0) if source_address else None
        connector = aiohttp.TCPConnector(
            ssl=ssl_context or True, local_addr=local, limit_per_host=CONNECTIONS_PER_PEER, limit=0
        )
        timeout = aiohttp.ClientTimeout(total=30)
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=jar, auto_decompress=False
        )

    def publish(self, own: ProviderKeys) -> None:
        """Set this provider's own document."""
        self._own = own

    @property
    def own(self) -> ProviderKeys:
        """This provider's own document."""
        if self._own is None:
            raise PeerError("this provider has not published its keys yet")
        return self._own

    async def close(self) -> None:
        """Close connections to peers."""
        await self._session.close()

    async def keys(self, domain: str) -> ProviderKeysTBS:
        """Return a provider's verified keys; raise `PeerError` or a subclass of `IdentityError`."""
        return (await self.document(domain)).keys

    async def document(self, domain: str) -> ProviderKeys:
        """Return a provider's signed keys, fetched on first use and again after `REFRESH_SECONDS`."""
        if domain == self.domain:
            return self.own
        now = self._clock()
        fetched, document = self._known.get(domain, (0.0, None))
        if document is None or fetched + REFRESH_SECONDS < now or document.keys.expiry <= now:
            document = PROVIDER_KEYS.read_answer(await self._call(domain, PROVIDER_KEYS, None))
            document.verify(domain, self._trust, now)
            self._signers[domain] = self._trust.verify_provider(domain, document.chain, now)
            self._known[domain] = (now, document)
        return document

    async def documents(self) -> list[ProviderKeys]:
        """Return every known provider's signed keys; skip and log those that can't be fetched in time."""
        found = await asyncio.gather(*(self._document_or_none(domain) for domain in sorted(self.urls)))
        return [self.own, *(document for document in found if document is not None)]

    async def _document_or_none(self, domain: str) -> ProviderKeys | None:
        """Return a peer's keys, or cached ones that are still valid. Wait before asking a silent peer again."""
        now = self._clock()
        _, known = self._known.get(domain, (0.0, None))
        usable = known if known is not None and known.keys.expiry > now else None
        if self._silent.get(domain, 0.0) > now:
            return usable
        try:
            async with asyncio.timeout(DOCUMENT_SECONDS):
                return await self.document(domain)
        except (MmrError, TimeoutError) as error:
            self._silent[domain] = now + SILENT_SECONDS
            reason = _reason(error)
            log.warning("no keys of peer %s: %s", domain, reason)
            return usable

    def asset_origins(self) -> set[str]:
        """Return the asset hosts named in this provider's document and in the known documents of its peers."""
        known = [self.own, *(document for _, document in self._known.values())]
        return {document.keys.asset_origin for document in known} - {""}

    async def send(self, domain: str, endpoint: Endpoint[Any, Any], body: bytes) -> bytes:
        """Send a signed request; return the answer's body. Raise `PeerError` for anything but success."""
        content = PeerRequestTBS.of(self.domain, domain, endpoint.peer_name, int(self._clock()), body)
        request = sign_peer_request(content, self._key)
        path = endpoint.path({})
        self._recorder.write(
            ProviderRole.HUB, "out", peer=domain, method=endpoint.method, path=path, body=body
        )
        return await self._call(domain, endpoint, body, request)

    def admission(self, endpoint: Endpoint[Any, Any]) -> Admission[str]:
        """Return the check for peers' signed requests to an endpoint; its subject is the peer's domain."""

        async def admit(arrival: Arrival) -> tuple[str, bytes]:
            content = await self.receive(arrival.peer, endpoint)
            body = await arrival.body(content.body_size)
            if not content.is_of(body):
                raise Unauthorized("the body is not the one that the peer's request is signed for")
            return content.sender, body

        return admit

    async def receive(self, head: str, endpoint: Endpoint[Any, Any]) -> PeerRequestTBS:
        """Verify the signed head of a peer's request, before its body is read; return what is signed.

        Raises `Unauthorized`, or `BodyTooLarge` for a body over the endpoint's limit.
        """
        try:
            request = PeerRequest.from_text(head)
        except ParseError as error:
            raise Unauthorized(f"the request is not signed as a peer's: {error}") from None
        content = request.content
        if content.recipient != self.domain or content.endpoint != endpoint.peer_name:
            raise Unauthorized("the peer's request is for another provider or endpoint")
        if abs(self._clock() - content.issued) > CLOCK_SKEW:
            raise Unauthorized("the peer's request is too old")
        if content.sender not in self.urls:
            raise Unauthorized("the sender is not a configured peer")
        await self.document(content.sender)
        signer = self._signers[content.sender]
        try:
            verify(signer, "PeerRequestTBS", content.to_bytes(), request.signature, by="peer's request")
        except SignatureRejected as error:
            raise Unauthorized(str(error)) from None
        if content.body_size > endpoint.limit:
            raise BodyTooLarge(f"a body of {content.body_size} bytes; at most {endpoint.limit} here")
        return content

    async def _call(
        self,
        domain: str,
        endpoint: Endpoint[Any, Any],
        data: bytes | None,
        request: PeerRequest | None = None,
    ) -> bytes:
        headers = {} if request is None else {"Authorization": f"{PEER_SCHEME} {request.to_text()}"}
        if domain not in self.urls:
            raise PeerError(f"{domain} is not a configured peer")
        try:
            async with self._session.request(
                endpoint.method,
                self.urls[domain] + endpoint.path({}),
                data=None if data is None else io.BytesIO(data),
                headers=headers,
                allow_redirects=False,
                skip_auto_headers=AUTO_HEADERS,
            ) as answer:
                if answer.status in REFUSALS:
                    raise PeerRefused(f"{domain} refuses the request with status {answer.status}")
                if answer.status not in (200, 201):
                    raise _NoAnswer(domain, f"it answers with status {answer.status}")
                return await read_limited(answer.content, MAX_ANSWER, answer.content_length)
        except (aiohttp.ClientError, TimeoutError, OSError, OhttpError) as error:
            raise _NoAnswer(domain, _cause(error)) from None


class _NoAnswer(PeerError):
    """A peer gave no usable answer. `cause` is one of this module's fixed phrases, so it contains no address."""

    def __init__(self, domain: str, cause: str) -> None:
        super().__init__(f"no answer of {domain}: {cause}")
        self.cause = cause


def _cause(error: Exception) -> str:
    """Describe the cause, so that an operator knows where to look."""
    setting = " (see tls.ca)" if isinstance(error, aiohttp.ClientConnectorCertificateError) else ""
    return cause_of(error) + setting


def _reason(error: MmrError | TimeoutError) -> str:
    """Describe the reason in fixed words, for a log line."""
    if isinstance(error, _NoAnswer):
        return error.cause
    if isinstance(error, CertificateRejected):
        return "its keys are not signed by the CA in trust_dir"
    return error.code if isinstance(error, MmrError) else "it does not answer in time"
