"""What tests do to a client from inside, that nobody who uses one could do: all such reaches have a name here."""

from __future__ import annotations

from dataclasses import replace

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import PublishedPackage
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.protocol.credentials import DeviceIdentity, RealCredential
from mimi_mmr.protocol.provider_keys import ProviderKeysTBS
from ohttp_relay.client import OhttpClient
from treewrap import WrapTree


def take_token(client: Client, token: AccessToken) -> None:
    """The client speaks to its provider by another account's token."""
    client.account._keys = replace(client.account.keys, token=token)


def take_credential(client: Client, credential: RealCredential) -> None:
    """The client says that it is somebody by another credential."""
    me = client.account.me
    client.account._me = DeviceIdentity(me.user, me.device, me.key, credential)


def as_if_last_resorts(client: Client) -> None:
    """All requests to this client are sealed to last resorts, whose keys are kept."""
    packages = client.people.connection_packages
    packages._packages = {key: _last_resort(one) for key, one in packages.items()}


def _last_resort(published: PublishedPackage) -> PublishedPackage:
    content = replace(published.package.content, last_resort=True)
    return replace(published, package=replace(published.package, content=content))


def look_there_first(client: Client, ref: bytes) -> None:
    """The KeyPackage with this reference is the first one whose queue is looked into."""
    outstanding = client.key_packages.outstanding
    outstanding._items = {ref: outstanding._items[ref]} | outstanding._items


def forget_device_entry(client: Client, place: bytes) -> None:
    """The client knows nothing of one shared entry."""
    del client.devices.shared._entries[place]


def tree_of(membership: Membership) -> WrapTree:
    """The Tree Wrap tree as a member holds it."""
    return membership.room._local.tree


def epoch_secret_of(membership: Membership) -> bytes:
    """What the MLS group exports for the Tree Wrap tree."""
    group = membership.room._local.group
    return group.export_secret(b"TreeWrap", group.group_id, 32)


# --- how a client reaches providers ------------------------------------------------------------------


def forget_connections(path: PrivatePath) -> None:
    """The path finds its way to every provider anew, through the same relays."""
    path._ways.clear()


def use_relay(path: PrivatePath, domain: str | None) -> None:
    """The path reaches its own provider through this one's relay from now on; one that it chooses, if None."""
    forget_connections(path)
    path._own_relay = domain


def own_relay(path: PrivatePath) -> str | None:
    """Whose relay the path reaches its own provider through; None if it has not chosen one."""
    return path._own_relay


def known_providers(path: PrivatePath) -> dict[str, ProviderKeysTBS]:
    """The providers' keys as the path knows them, to be changed."""
    return path._known.providers


def forget_providers(path: PrivatePath) -> None:
    """The path asks for the providers' keys anew."""
    path._known.fetched = 0.0


def lead_nowhere(path: PrivatePath, url: str) -> None:
    """The path's own provider, and so its relay, is at another address."""
    path._url = url


async def way_to(path: PrivatePath, domain: str) -> OhttpClient:
    """What the path sends requests to a provider with."""
    _, client = await path._way(domain)
    return client


async def exchange(path: PrivatePath, domain: str, method: str, url: str) -> bytes:
    """A request to any URL, by the path's way to a provider."""
    return await path._exchange(domain, method, url, b"")
