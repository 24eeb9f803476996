"""A provider's accounts: who its users are, their connection packages, and requests that wait for them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mimi_mmr.connections import ConnectionPackage
from mimi_mmr.errors import NotAllowed, QueueFull, Unauthorized
from mimi_mmr.secret import AccessToken
from mimi_mmr.store.database import Database
from mimi_mmr.store.tables import connection_packages, connection_requests, users
from mimi_mmr.uris import MimiUri

MAX_PACKAGES = 200
MAX_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A sealed connection request, as deposited."""

    id: int
    deposit: bytes


class AccountStore:
    """Accounts of one provider."""

    def __init__(self, database: Database) -> None:
        """Over the accounts' own database."""
        self._database = database

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def register(self, user: MimiUri, token: AccessToken) -> None:
        """A new account; its token is stored hashed. Raises `NotAllowed` if the name is taken."""
        try:
            async with self._database.write() as connection:
                await connection.execute(sa.insert(users).values(uri=str(user), token_hash=_hash(token)))
        except sa.exc.IntegrityError:
            raise NotAllowed("this user name is taken") from None

    async def authenticate(self, user: MimiUri, token: AccessToken) -> None:
        """Raises `Unauthorized`, the same for an unknown user and a wrong token."""
        async with self._database.read() as connection:
            stored = await connection.scalar(sa.select(users.c.token_hash).where(users.c.uri == str(user)))
        if not hmac.compare_digest(stored or bytes(32), _hash(token)):
            raise Unauthorized("no such account, or not its token")

    async def publish(self, user: MimiUri, packages: Sequence[ConnectionPackage]) -> None:
        """Add connection packages; raises `QueueFull` above the account's bound."""
        rows = [
            {
                "uri": str(user),
                "package": package.to_bytes(),
                "last_resort": package.content.last_resort,
                "expiry": package.content.expiry,
            }
            for package in packages
        ]
        count = sa.select(sa.func.count()).where(connection_packages.c.uri == str(user))
        if not rows:
            return
        async with self._database.write() as connection:
            if (await connection.scalar(count) or 0) + len(rows) > MAX_PACKAGES:
                raise QueueFull(f"an account holds at most {MAX_PACKAGES} connection packages")
            await connection.execute(sa.insert(connection_packages), rows)

    async def take_package(self, user: MimiUri, now: float) -> bytes | None:
        """A one-time package, which is then gone, or else the last resort, or else None."""
        table = connection_packages
        valid = sa.and_(table.c.uri == str(user), table.c.expiry > now)
        oldest = sa.select(table).where(valid).order_by(table.c.last_resort, table.c.id).limit(1)
        async with self._database.write() as connection:
            row = (await connection.execute(oldest.with_for_update())).one_or_none()
            if row is None:
                return None
            if not row.last_resort:
                await connection.execute(sa.delete(table).where(table.c.id == row.id))
            return bytes(row.package)

    async def expire(self, now: float) -> None:
        """Drop packages that nobody is given any more, so that they don't fill their account."""
        async with self._database.write() as connection:
            table = connection_packages
            await connection.execute(sa.delete(table).where(table.c.expiry <= now))

    async def deposit(self, user: MimiUri, request: bytes) -> None:
        """Keep a sealed request. An unknown user, or a full inbox, looks like any other to the depositor."""
        table = connection_requests
        waiting = sa.select(sa.func.count()).where(table.c.uri == str(user))
        async with self._database.write() as connection:
            known = await connection.scalar(sa.select(users.c.uri).where(users.c.uri == str(user)))
            if known is not None and (await connection.scalar(waiting) or 0) < MAX_REQUESTS:
                await connection.execute(sa.insert(table).values(uri=str(user), deposit=request))

    async def requests(self, user: MimiUri) -> list[WaitingRequest]:
        """What waits for a user, oldest first."""
        table = connection_requests
        query = sa.select(table).where(table.c.uri == str(user)).order_by(table.c.id)
        async with self._database.read() as connection:
            return [WaitingRequest(row.id, row.deposit) for row in await connection.execute(query)]

    async def forget_request(self, user: MimiUri, number: int) -> None:
        """Drop a request that its user has dealt with."""
        table = connection_requests
        async with self._database.write() as connection:
            await connection.execute(sa.delete(table).where(table.c.uri == str(user), table.c.id == number))


def _hash(token: AccessToken) -> bytes:
    return hashlib.sha256(b"MIMI-MMR 1.0 account" + token.reveal()).digest()
