"""What tests do to a client from inside, that nobody who uses one could do: all such reaches have a name here."""

from __future__ import annotations

from dataclasses import replace

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import PublishedPackage
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.protocol.credentials import DeviceIdentity, RealCredential
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
