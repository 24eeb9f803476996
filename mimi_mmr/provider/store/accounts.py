"""A provider's accounts: users, their devices, their connection packages, and waiting connection requests."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import NotAllowed, QueueFull, Unauthorized
from mimi_mmr.protocol.accounts import PackageCount, PackagesLeft, access_token_hash
from mimi_mmr.protocol.connections import ConnectionPackage
from mimi_mmr.protocol.key_packages import MAX_CLIENTS
from mimi_mmr.provider.store.database import Database, Row, insert_new
from mimi_mmr.provider.store.tables import connection_packages, connection_requests, devices, users
from mimi_mmr.uris import MimiUri

MAX_DEVICES = MAX_CLIENTS
MAX_PACKAGES = 200
MAX_REQUESTS = 1000
_TOKEN_TAKEN = "the access token is another device's"  # noqa: S105  # words, no token


@dataclass(frozen=True, slots=True)
class Device:
    """One device of an account at its registration: its name, its 32-byte key, its access token."""

    uri: MimiUri
    public_key: bytes
    token: AccessToken

    def row(self, user: MimiUri) -> dict[str, object]:
        """Return the database row; it holds only the hash of the token."""
        return {
            "device": str(self.uri),
            "uri": str(user),
            "public_key": self.public_key,
            "token_hash": access_token_hash(self.token),
        }


@dataclass(frozen=True, slots=True)
class Caller:
    """The user and the device that an access token belongs to."""

    user: MimiUri
    device: MimiUri
    public_key: bytes


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A sealed connection request, as deposited."""

    id: int
    deposit: bytes


class AccountStore:
    """Accounts of one provider."""

    def __init__(self, database: Database) -> None:
        """Store accounts in `database`, which holds nothing else."""
        self._database = database

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    # --- accounts and devices ------------------------------------------------------------------------

    async def register(self, user: MimiUri, device: Device) -> MimiUri:
        """Add a new account with its first device; repeating the same registration changes nothing.

        Returns the device's URI: `device.uri`, or the one that an earlier version gave the same registration.
        Raises `NotAllowed` if the user's name is taken; a closed account keeps its name.
        """
        async with self._database.write() as connection:
            if await insert_new(connection, users, {"uri": str(user), "open": True}):
                if await insert_new(connection, devices, device.row(user)):
                    return device.uri
                raise NotAllowed(_TOKEN_TAKEN)
            same = _same_device(await _device_rows(connection, user), user, device)
            if same is None:
                raise NotAllowed("this user name is taken; the name of a closed account stays taken")
            return same

    async def authenticate(self, user: MimiUri, token: AccessToken) -> Caller:
        """Return the user and device that a token belongs to; raise `Unauthorized`.

        An unknown user and a wrong token give the same error: both are a look-up of the token's hash, in one index,
        that finds no row.
        """
        wanted = access_token_hash(token)
        async with self._database.read() as connection:
            found = await connection.execute(sa.select(devices).where(devices.c.token_hash == wanted))
            row = found.one_or_none()
        given = str(user).encode() + wanted
        stored = b"" if row is None else row.uri.encode() + row.token_hash
        if row is None or not hmac.compare_digest(stored, given):
            raise Unauthorized("no such account, or not its token")
        return Caller(user, MimiUri.parse(row.device), row.public_key)

    async def add_device(self, caller: Caller, device: Device) -> MimiUri:
        """Add a further device; repeating the same request changes nothing.

        Returns its URI, as `register` does. Raises `NotAllowed` if the account has a device of this name, or its
        maximum of devices.
        """
        async with self._database.write() as connection:
            await _lock(connection, caller)
            present = await _device_rows(connection, caller.user)
            same = _same_device(present, caller.user, device)
            if same is not None:
                return same
            if device.uri.name in present:
                raise NotAllowed("this device name is taken: another device of the account has it")
            if len(present) >= MAX_DEVICES:
                raise NotAllowed(f"an account has at most {MAX_DEVICES} devices")
            if not await insert_new(connection, devices, device.row(caller.user)):
                raise NotAllowed(_TOKEN_TAKEN)
            return device.uri

    async def devices(self, user: MimiUri) -> list[MimiUri]:
        """Return an account's devices, in the order of their names."""
        async with self._database.read() as connection:
            rows = await _device_rows(connection, user)
        return [MimiUri.parse(row.device) for _, row in sorted(rows.items())]

    async def remove_device(self, caller: Caller, name: str) -> None:
        """Remove a device, its token and its connection packages; do nothing if there is no such device.

        Raises `NotAllowed` for the account's last device.
        """
        async with self._database.write() as connection:
            await _lock(connection, caller)
            present = await _device_rows(connection, caller.user)
            if name not in present:
                return  # removed before: a retry after a lost answer
            if len(present) == 1:
                raise NotAllowed("an account keeps its last device; close the account instead")
            for table in (devices, connection_packages):
                await connection.execute(sa.delete(table).where(table.c.device == present[name].device))

    async def close_account(self, caller: Caller) -> None:
        """Delete everything of an account except the reservation of its name."""
        async with self._database.write() as connection:
            await _lock(connection, caller)
            for table in (connection_packages, connection_requests, devices):
                await connection.execute(sa.delete(table).where(table.c.uri == str(caller.user)))
            closing = sa.update(users).where(users.c.uri == str(caller.user))
            await connection.execute(closing.values(open=False))

    # --- connection packages -------------------------------------------------------------------------

    async def publish(self, caller: Caller, packages: Sequence[ConnectionPackage]) -> None:
        """Add connection packages of the calling device; raise `QueueFull` above the account's limit."""
        rows = [
            {
                "uri": str(caller.user),
                "device": str(caller.device),
                "package": package.to_bytes(),
                "last_resort": package.content.last_resort,
                "expiry": package.content.expiry,
            }
            for package in packages
        ]
        if not rows:
            return
        count = sa.select(sa.func.count()).where(connection_packages.c.uri == str(caller.user))
        async with self._database.write() as connection:
            await _lock(connection, caller)
            if (await connection.scalar(count) or 0) + len(rows) > MAX_PACKAGES:
                raise QueueFull(f"an account holds at most {MAX_PACKAGES} connection packages")
            await connection.execute(sa.insert(connection_packages), rows)

    async def withdraw_packages(self, caller: Caller) -> None:
        """Delete all of an account's packages, whichever device published them."""
        table = connection_packages
        async with self._database.write() as connection:
            await _lock(connection, caller)
            await connection.execute(sa.delete(table).where(table.c.uri == str(caller.user)))

    async def packages_left(self, caller: Caller, now: float) -> PackagesLeft:
        """Count the packages that can still be given out."""
        table = connection_packages
        valid = sa.and_(table.c.uri == str(caller.user), table.c.expiry > int(now))
        query = sa.select(table.c.device, table.c.last_resort, table.c.expiry).where(valid)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        left = [(last_resort, expiry) for _, last_resort, expiry in rows]
        own = [(last_resort, expiry) for device, last_resort, expiry in rows if device == str(caller.device)]
        return PackagesLeft(_count(own), _count(left))

    async def take_package(self, user: MimiUri, now: float) -> bytes | None:
        """Take and delete a one-time package; without one return the last resort; without that, None."""
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
        """Delete packages that are no longer given out, so that they don't count towards their account's limit."""
        async with self._database.write() as connection:
            table = connection_packages
            await connection.execute(sa.delete(table).where(table.c.expiry <= now))

    # --- connection requests -------------------------------------------------------------------------

    async def deposit(self, user: MimiUri, request: bytes) -> None:
        """Store a sealed request. The depositor can't tell an unknown user or a full inbox from success."""
        table = connection_requests
        waiting = sa.select(sa.func.count()).where(table.c.uri == str(user)).scalar_subquery()
        addressee = sa.select(users.c.uri, sa.literal(request)).where(
            users.c.uri == str(user), users.c.open, waiting < MAX_REQUESTS
        )
        async with self._database.write() as connection:  # one statement in every case
            await connection.execute(sa.insert(table).from_select(["uri", "deposit"], addressee))

    async def requests(self, user: MimiUri) -> list[WaitingRequest]:
        """Return a user's waiting requests, oldest first."""
        table = connection_requests
        query = sa.select(table).where(table.c.uri == str(user)).order_by(table.c.id)
        async with self._database.read() as connection:
            return [WaitingRequest(row.id, row.deposit) for row in await connection.execute(query)]

    async def forget_request(self, user: MimiUri, number: int) -> None:
        """Delete a request that its user has accepted or refused."""
        table = connection_requests
        async with self._database.write() as connection:
            await connection.execute(sa.delete(table).where(table.c.uri == str(user), table.c.id == number))


async def _lock(connection: AsyncConnection, caller: Caller) -> None:
    """Lock the account, so that its devices do not change; raise `Unauthorized` if the caller was removed."""
    account = sa.select(users.c.uri).where(users.c.uri == str(caller.user), users.c.open).with_for_update()
    is_open = await connection.scalar(account) is not None
    here = sa.select(devices.c.device).where(
        devices.c.uri == str(caller.user), devices.c.device == str(caller.device)
    )
    if not is_open or await connection.scalar(here) is None:
        raise Unauthorized("no such account, or not its token")


async def _device_rows(connection: AsyncConnection, user: MimiUri) -> dict[str, Row]:
    """Return the rows of an account's devices by their names, which are unique within the account."""
    rows = await connection.execute(sa.select(devices).where(devices.c.uri == str(user)))
    return {MimiUri.parse(row.device).name: row for row in rows}


def _same_device(present: Mapping[str, Row], user: MimiUri, device: Device) -> MimiUri | None:
    """Return the URI of an account's device if it has this device's name, key and token; otherwise None."""
    row = present.get(device.uri.name)
    if row is None:
        return None
    wanted = device.row(user) | {"device": row.device}  # earlier versions wrote the URI in another form
    same = [hmac.compare_digest(_bytes(wanted[name]), _bytes(row._mapping[name])) for name in wanted]
    return MimiUri.parse(row.device) if all(same) else None


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _count(packages: Sequence[tuple[bool, int]]) -> PackageCount:
    last_resorts = sum(last_resort for last_resort, _ in packages)
    expiry = min((expiry for _, expiry in packages), default=None)
    return PackageCount(len(packages) - last_resorts, last_resorts, expiry)
