"""Chunked encapsulated messages (draft-ietf-ohai-chunked-ohttp-08).  Bytes in, bytes out.

Chunks follow the header (request) or nonce (response): a length as a variable-length integer, and that many
sealed bytes.  Length 0 announces the final chunk, which extends to the end of the outer stream.  It is sealed
with other associated data, so that a truncated message never passes as whole.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from ohttp_relay.bhttp.varint import decode_varint, encode_varint
from ohttp_relay.capsule.client import start_request
from ohttp_relay.capsule.format import HEADER_SIZE, enc_size, response_cipher
from ohttp_relay.capsule.gateway import open_header
from ohttp_relay.errors import BodyTooLarge, OpenFailed, TruncatedCapsule
from ohttp_relay.hpke.kem import KemSecret
from ohttp_relay.hpke.sender import SenderContext
from ohttp_relay.hpke.suites import TAG_SIZE, Aead, AeadId, Cipher, Exporter, Sequence, Suite, open_sealed
from ohttp_relay.keys.configuration import KeyConfig
from ohttp_relay.keys.ring import KeyRing

CHUNKED_REQUEST_TYPE: Final = "message/ohttp-chunked-req"
CHUNKED_RESPONSE_TYPE: Final = "message/ohttp-chunked-res"
CHUNKED_REQUEST_LABEL: Final = b"message/bhttp chunked request"
CHUNKED_RESPONSE_LABEL: Final = b"message/bhttp chunked response"
CHUNK_SIZE: Final = 16_384
MAX_CHUNK: Final = 1 << 20
_FINAL: Final = b"final"
_AES_GCM_MESSAGE: Final = 1 << 30


class Sealer(Protocol):
    """What seals chunks in sequence."""

    @property
    def aead(self) -> Aead:
        """The AEAD in use."""

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return the next sealed chunk."""


class Opener(Protocol):
    """What opens chunks in sequence."""

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return the next chunk.  Raises OpenFailed."""


class ResponseChunks(Sequence):
    """The cipher of one response's chunks; the nonce is XORed with a counter (section 6.2)."""

    __slots__ = ("_cipher", "aead")

    def __init__(self, aead: Aead, cipher: Cipher, base_nonce: bytes) -> None:
        super().__init__(base_nonce)
        self.aead = aead
        self._cipher = cipher

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return the next sealed chunk."""
        return self._cipher.encrypt(self.take(), plaintext, aad or None)

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return the next chunk.  Raises OpenFailed."""
        return open_sealed(self._cipher, self.take(), ciphertext, aad)


class ChunkWriter:
    """A writer of framed chunks of at most `chunk_size` bytes; it holds nothing back.

    Raises BodyTooLarge beyond 2**30 bytes under AES-GCM, which keeps an attacker's advantage below 2**-50
    over 2**20 messages (section 7.3).
    """

    __slots__ = ("_left", "_sealer", "_size", "total")

    def __init__(self, sealer: Sealer, chunk_size: int = CHUNK_SIZE) -> None:
        self._sealer = sealer
        self._size = chunk_size
        self._left = 1 << 62 if sealer.aead.id == AeadId.CHACHA20_POLY1305 else _AES_GCM_MESSAGE
        self.total = 0

    def write(self, data: bytes) -> bytes:
        """Return chunks that carry `data`; no bytes for empty data."""
        return b"".join(self._frame(data[at : at + self._size]) for at in range(0, len(data), self._size))

    def finish(self, data: bytes = b"") -> bytes:
        """Return chunks that carry `data`, the last one being the final chunk."""
        last = max(0, (len(data) - 1) // self._size * self._size)
        head = self.write(data[:last])
        self._count(len(data) - last)
        return head + b"\0" + self._sealer.seal(data[last:], _FINAL)

    def _frame(self, piece: bytes) -> bytes:
        self._count(len(piece))
        sealed = self._sealer.seal(piece)
        return encode_varint(len(sealed)) + sealed

    def _count(self, size: int) -> None:
        self.total += size
        if self.total > self._left:
            raise BodyTooLarge("a message under AES-GCM carries at most 2**30 bytes")


class ChunkReader:
    """A reader of chunks from bytes that are split anywhere.

    A chunk of more than `max_chunk` bytes raises BodyTooLarge.  An empty chunk that is not the final one is
    a decryption error (section 6).
    """

    __slots__ = ("_buffer", "_final", "_max", "_opener", "opened")

    def __init__(self, opener: Opener, max_chunk: int = MAX_CHUNK) -> None:
        self._opener = opener
        self._max = max_chunk + TAG_SIZE
        self._buffer = bytearray()
        self._final = False
        self.opened = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the plaintext of each chunk that is now complete."""
        self._buffer += data
        pieces: list[bytes] = []
        while not self._final and (piece := self._next()) is not None:
            pieces.append(piece)
        if self._final and len(self._buffer) > self._max:
            raise BodyTooLarge(f"final chunk of more than {self._max} bytes")
        return pieces

    def finish(self) -> bytes:
        """Take the end of the outer stream; return the final chunk's plaintext, which may be empty.

        Raises TruncatedCapsule if there was no final chunk, OpenFailed if it is not one.
        """
        if not self._final:
            raise TruncatedCapsule("the message ends without its final chunk")
        plaintext = self._opener.open(bytes(self._buffer), _FINAL)
        self.opened += 1
        return plaintext

    def _next(self) -> bytes | None:
        found = decode_varint(self._buffer)
        if found is None:
            return None
        length, start = found
        if length == 0:
            self._final = True
            del self._buffer[:start]
            return None
        if length > self._max:
            raise BodyTooLarge(f"chunk of {length} bytes, at most {self._max} are accepted")
        if len(self._buffer) < start + length:
            return None
        sealed = bytes(memoryview(self._buffer)[start : start + length])
        del self._buffer[: start + length]
        return self._open(sealed)

    def _open(self, sealed: bytes) -> bytes:
        plaintext = self._opener.open(sealed)
        if not plaintext:
            raise OpenFailed("an empty chunk that is not the final one")
        self.opened += 1
        return plaintext


def _response_chunks(context: Exporter, enc: bytes, nonce: bytes) -> ResponseChunks:
    secret = context.export(CHUNKED_RESPONSE_LABEL, context.aead.entropy_size)
    return ResponseChunks(context.aead, *response_cipher(context.aead, secret, enc, nonce))


class ResponseReader:
    """The client's end: a reader of a chunked response, which is a nonce and chunks."""

    __slots__ = ("_context", "_enc", "_head", "_max", "_reader")

    def __init__(self, context: SenderContext, enc: bytes, max_chunk: int = MAX_CHUNK) -> None:
        self._context = context
        self._enc = enc
        self._max = max_chunk
        self._head = b""
        self._reader: ChunkReader | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the plaintext that is now complete.  Raises OpenFailed or BodyTooLarge."""
        if self._reader is not None:
            return self._reader.feed(data)
        self._head += data
        size = self._context.aead.entropy_size
        if len(self._head) < size:
            return []
        nonce, rest = self._head[:size], self._head[size:]
        self._reader = ChunkReader(_response_chunks(self._context, self._enc, nonce), self._max)
        return self._reader.feed(rest)

    def finish(self) -> bytes:
        """Take the end of the stream; return the final plaintext.  Raises TruncatedCapsule, OpenFailed."""
        if self._reader is None:
            raise TruncatedCapsule("the message ends inside its nonce")
        return self._reader.finish()


def start_chunked_request(
    config: KeyConfig, suite: Suite | None = None, *, ephemeral: KemSecret | None = None
) -> tuple[bytes, ChunkWriter, ResponseReader]:
    """Return (first bytes, writer for the request, reader for its response).  Raises NoUsableKey."""
    header, enc, context = start_request(config, suite, CHUNKED_REQUEST_LABEL, ephemeral)
    return header + enc, ChunkWriter(context), ResponseReader(context, enc)


def chunked_header_size(header: bytes) -> int:
    """Return how many bytes come before a request's chunks.  Raises TruncatedCapsule, UnknownKey."""
    if len(header) < HEADER_SIZE:
        raise TruncatedCapsule(f"a request header has {HEADER_SIZE} bytes, got {len(header)}")
    return HEADER_SIZE + enc_size(header)


class ChunkedRequest:
    """The gateway's end: a reader of one request's chunks, and the writer for its response."""

    __slots__ = ("_context", "enc", "reader")

    def __init__(self, ring: KeyRing, head: bytes, max_chunk: int = MAX_CHUNK) -> None:
        """Open the bytes before the chunks.  Raises TruncatedCapsule, UnknownKey, OpenFailed."""
        self.enc, self._context = open_header(ring, head, CHUNKED_REQUEST_LABEL)
        self.reader = ChunkReader(self._context, max_chunk)

    def respond(self, nonce: bytes | None = None) -> tuple[bytes, ChunkWriter]:
        """Return (first bytes, writer for the response).  `nonce` is for vectors only."""
        nonce = nonce or os.urandom(self._context.aead.entropy_size)
        return nonce, ChunkWriter(_response_chunks(self._context, self.enc, nonce))
