"""A PostgreSQL URL's parameters mean what they mean in libpq; those that can't be honoured are named."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.postgresql import connect_arguments

SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # PostgreSQL, "Message Formats"


def arguments(query: str, rest: str = "me:p%40ss@h:5433/d") -> dict[str, Any]:
    return connect_arguments(sa.make_url(f"postgresql+asyncpg://{rest}?{query}"))


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require",
        "sslmode=verify-full",
        "host=/run/postgresql",
        "host=a,b&port=1,2&target_session_attrs=read-write",
        f"passfile={__file__}&sslcert={__file__}&sslkey={__file__}&sslrootcert={__file__}",
    ],
)
def test_what_the_driver_reads_is_left_to_it(query: str) -> None:
    given = sa.make_url(arguments(query)["dsn"])
    assert (given.drivername, given.username, given.password) == ("postgresql", "me", "p@ss")
    assert given.query == sa.make_url(f"postgresql://h/d?{query}").query


def test_what_the_driver_does_not_read_is_translated() -> None:
    found = arguments(
        "connect_timeout=10&application_name=mmr&options=-c%20search_path%3Dx&client_encoding=UTF8"
    )
    assert found["timeout"] == 10
    assert found["server_settings"] == {"application_name": "mmr", "options": "-c search_path=x"}
    assert "?" not in found["dsn"]
    assert arguments("connect_timeout=0")["timeout"] is None
    assert arguments("connect_timeout=1")["timeout"] == 2
    assert arguments("fallback_application_name=x")["server_settings"] == {"application_name": "x"}
    assert arguments("statement_cache_size=0&prepared_statement_cache_size=0").items() >= {
        ("statement_cache_size", 0),
        ("prepared_statement_cache_size", 0),
    }


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("channel_binding=require", "the URL's parameter channel_binding can't be used here"),
        ("sslmod=require", "the URL's parameter sslmod can't be used here"),
        ("client_encoding=LATIN1", "client_encoding: expected UTF8"),
        ("connect_timeout=soon", "connect_timeout: expected a whole number"),
        (
            "sslmode=verify-full&sslrootcert=/nowhere/roots.pem",
            "sslrootcert: no such file: /nowhere/roots.pem",
        ),
    ],
)
async def test_a_parameter_that_can_not_be_honoured_is_named(query: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await Database.open(f"postgresql://h/d?{query}", tables.hub)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sslmode=sometimes", "`sslmode` parameter must be one of"),
        ("options=-c%20nothing%3D1", "can't be opened"),
        ("user=nobody&host=/nowhere", "can't be opened"),
    ],
)
async def test_a_connection_that_is_refused_is_a_settings_error(postgres: Any, query: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        await Database.open(with_query(postgres.get_uri(), query), tables.hub)
    assert "\n" not in str(found.value)
    assert "sqlalche" not in str(found.value)


@pytest.mark.parametrize(("mode", "asks"), [("require", True), ("disable", False)])
async def test_what_is_sent_to_a_server_without_tls_is_what_libpq_sends(mode: str, asks: bool) -> None:
    """With TLS required, nothing is sent after the server has refused it."""
    seen: list[bytes] = []
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(8))
        if seen[-1] == SSL_REQUEST:
            writer.write(b"N")
            seen.append(await reader.read())
        writer.close()
        ended.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigError, match="can't be opened"):
            await Database.open(f"postgresql://me:pass@127.0.0.1:{port}/d?sslmode={mode}", tables.hub)
        async with asyncio.timeout(20):
            await ended.wait()
    assert seen == [SSL_REQUEST, b""] if asks else SSL_REQUEST not in seen


async def test_parameters_reach_the_server(postgres: Any) -> None:
    query = (
        "sslmode=disable&application_name=a%20name&options=-c%20statement_timeout%3D12345&connect_timeout=20"
    )
    database = await Database.open(with_query(postgres.get_uri(), query), tables.hub)
    try:
        async with database.read() as connection:
            wanted = "select current_setting('application_name'), current_setting('statement_timeout')"
            assert tuple((await connection.execute(sa.text(wanted))).one()) == ("a name", "12345ms")
    finally:
        await database.close()
        postgres.psql("drop schema public cascade; create schema public")


def with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"
