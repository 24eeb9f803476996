"""A server's certificate is replaced while it serves: whole, or not at all."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path

import pytest
import trustme

from ohttp_relay.errors import ConfigurationError
from ohttp_relay.server.certificates import ServerCertificate


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


def write(folder: Path, ca: trustme.CA, name: str = "first.example", key_of: str | None = None) -> bytes:
    """Write a pair, or a certificate with another key; return the certificate (DER)."""
    made = ca.issue_cert("localhost", name)
    other = made if key_of is None else ca.issue_cert("localhost", key_of)
    made.cert_chain_pems[0].write_to_path(folder / "tls.pem")
    other.private_key_pem.write_to_path(folder / "key.pem")
    return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())


def shaken(server: ServerCertificate, ca: trustme.CA, *, name: str | None = "localhost") -> bytes:
    """The certificate (DER) that a client gets in a handshake, in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    ca.configure_trust(context)
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(pipes[0], pipes[1], server_hostname=name)
    ours = server.context.wrap_bio(pipes[1], pipes[0], server_side=True)
    for _ in range(4):
        for end in (client, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["localhost", None])  # with the server's name in the handshake, and without
def test_new_handshakes_use_the_renewed_certificate(tmp_path: Path, ca: trustme.CA, name: str | None) -> None:
    first = write(tmp_path, ca)
    served = ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem")
    assert shaken(served, ca, name=name) == first
    for _ in range(2):
        renewed = write(tmp_path, ca)
        assert shaken(served, ca, name=name) != renewed  # not before it is asked to
        assert served.reload()
        assert shaken(served, ca, name=name) == renewed


def test_a_pair_that_does_not_fit_is_refused_and_the_old_one_stays(
    tmp_path: Path, ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    first = write(tmp_path, ca)
    served = ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem")
    no_pair = "certificate and key are not a matching PEM pair"
    missing = "the {} can't be read: No such file or directory"
    for spoil, why in (
        (lambda: write(tmp_path, ca, key_of="second.example"), no_pair),
        (lambda: (tmp_path / "tls.pem").write_text("rubbish"), no_pair),
        (lambda: (tmp_path / "key.pem").unlink(), missing.format("key")),
        (lambda: (tmp_path / "tls.pem").unlink(), missing.format("certificate")),
    ):
        spoil()
        caplog.clear()
        assert not served.reload()
        assert [record.getMessage() for record in caplog.records] == [
            f"the new TLS certificate is refused, the old one stays in use: {why}"
        ]
        assert shaken(served, ca) == first
    with pytest.raises(ConfigurationError):
        ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem")


def test_authorities_of_clients_that_are_none_are_not_blamed_on_the_key(
    tmp_path: Path, ca: trustme.CA
) -> None:
    write(tmp_path, ca)
    files = (tmp_path / "tls.pem", tmp_path / "key.pem", tmp_path / "clients.pem")
    with pytest.raises(ConfigurationError, match="of the clients' authorities can't be read: No such file"):
        ServerCertificate(*files)
    files[2].write_text("rubbish")
    with pytest.raises(ConfigurationError, match="the clients' authorities are not certificates"):
        ServerCertificate(*files)


async def test_a_change_of_the_files_is_noticed_without_a_signal(tmp_path: Path, ca: trustme.CA) -> None:
    write(tmp_path, ca)
    served = ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem")
    looking = asyncio.create_task(served.watch(0.001))
    renewed = write(tmp_path, ca)
    async with asyncio.timeout(10):
        while shaken(served, ca) != renewed:  # noqa: ASYNC110  # nothing to wait for but that
            await asyncio.sleep(0.001)
    looking.cancel()


def test_files_that_have_not_changed_are_not_read_again(
    tmp_path: Path, ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(tmp_path, ca)
    served = ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem")
    served.reload_if_changed()
    assert not caplog.messages
    (tmp_path / "tls.pem").write_text("rubbish")
    for _ in range(3):
        served.reload_if_changed()
    assert len(caplog.messages) == 1  # said once


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(
    tmp_path: Path, ca: trustme.CA
) -> None:
    from cryptography.hazmat.primitives import serialization

    write(tmp_path, ca)
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "key.pem").write_bytes(sealed)
    with pytest.raises(ConfigurationError, match="not a matching PEM pair"):
        ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem")


def test_a_renewed_key_that_others_may_read_is_refused_as_at_the_start(
    tmp_path: Path, ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    first = write(tmp_path, ca)
    key = tmp_path / "key.pem"
    key.chmod(0o640)
    served = ServerCertificate(tmp_path / "tls.pem", key, forbidden_mode=stat.S_IRWXO)
    write(tmp_path, ca)
    key.chmod(0o644)
    assert not served.reload()
    assert "others may read the key file" in caplog.text
    assert shaken(served, ca) == first
    key.chmod(0o640)
    served.reload_if_changed()  # permissions are looked at like contents
    assert shaken(served, ca) == ssl.PEM_cert_to_DER_cert((tmp_path / "tls.pem").read_text())


def test_authorities_of_clients_that_are_none_are_named(tmp_path: Path, ca: trustme.CA) -> None:
    write(tmp_path, ca)
    (tmp_path / "clients.pem").write_text("rubbish")
    with pytest.raises(ConfigurationError, match="the clients' authorities"):
        ServerCertificate(tmp_path / "tls.pem", tmp_path / "key.pem", tmp_path / "clients.pem")
