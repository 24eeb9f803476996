"""HKDF and HMAC: the standard library's, the RFC's vectors, and no look-up by a secret."""

from __future__ import annotations

import ast
import hmac
import inspect

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import example, given
from hypothesis import strategies as st

from ohttp_relay.hpke import hkdf
from ohttp_relay.hpke.hkdf import HmacKey, expand_info, extract, hmac_sha256, prf, prf_three, prf_two

keys = st.binary(max_size=64)
messages = st.binary(max_size=200)


@given(st.binary(max_size=200), messages)
@example(bytes(64), b"")
@example(b"\xff" * 65, b"x")
def test_hmac_is_that_of_the_standard_library(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


@given(keys, messages, messages, messages)
@example(bytes(32), b"", b"", b"")
@example(b"\x36" * 32, b"a", b"b", b"c")
@example(b"\x5c" * 64, b"a", b"b", b"c")
def test_the_shared_key_forms_are_hmac_too(key: bytes, first: bytes, second: bytes, third: bytes) -> None:
    expected = tuple(hmac.digest(key, message, "sha256") for message in (first, second, third))
    assert prf(key, first) == expected[0]
    assert prf_two(key, first, second) == expected[:2]
    assert prf_three(key, first, second, third) == expected
    assert HmacKey(key).digest(first) == expected[0]
    assert HmacKey(key, first).digest(second) == hmac.digest(key, first + second, "sha256")


@given(keys, messages, messages, st.integers(1, 32))
def test_extract_and_expand_are_those_of_cryptography(
    salt: bytes, ikm: bytes, info: bytes, length: int
) -> None:
    prk = extract(salt, ikm)
    assert prk == HKDF.extract(SHA256(), salt, ikm)
    assert prf(prk, expand_info(info))[:length] == HKDFExpand(SHA256(), length, info).derive(prk)


def test_the_first_example_of_rfc_5869() -> None:
    prk = extract(bytes(range(13)), b"\x0b" * 22)
    assert prk.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    okm = prf(prk, expand_info(bytes(range(0xF0, 0xFA))))
    assert okm.hex().startswith("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")


def test_a_key_longer_than_a_block_is_refused_where_it_cannot_be_used() -> None:
    for use in (lambda: prf(bytes(64) + b"\1", b""), lambda: HmacKey(bytes(64) + b"\1")):
        with pytest.raises(OverflowError):
            use()


def test_nothing_is_looked_up_by_a_secret() -> None:
    """Neither `bytes.translate` nor an index: only slices, whose bounds are constants or lengths."""
    for node in ast.walk(ast.parse(inspect.getsource(hkdf))):
        assert not (isinstance(node, ast.Attribute) and node.attr == "translate")
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            assert isinstance(node.slice, ast.Slice) or ast.unparse(node.value) in ("tuple", "Final"), (
                ast.unparse(node)
            )
