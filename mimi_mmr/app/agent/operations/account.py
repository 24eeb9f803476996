"""Accounts: made, shown, given another passphrase, deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mimi_mmr.app.agent.errors import AgentError, NoAccount
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.settings import Settings
from mimi_mmr.app.agent.views import account_view
from mimi_mmr.app.agent.wire import Given
from mimi_mmr.client import Client
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import ConfigError, MmrError, PeerError, PrivatePathFailed
from mimi_mmr.uris import check_domain, check_name

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say


def settings_of(agent: Agent, given: Given) -> Settings:
    """What a command says of trust and TLS, tried out; raises `ConfigError`."""
    tls_ca = str(agent.given_path(given, "tls_ca")) if given.text_or_none("tls_ca") else None
    settings = Settings(str(agent.given_path(given, "trust")), tls_ca, given.number("key_package_slot"))
    settings.trust(given.text("domain"))
    settings.tls()
    return settings


def provider_url(given: Given) -> str:
    """`https://host[:port]`; raises `ConfigError`."""
    url = given.text("provider").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path or parts.query:
        raise ConfigError("--provider: expected https://host[:port]")
    return url


def begin(agent: Agent, given: Given, begun: Client | None, *, entering: bool = False) -> Client:
    """A new client, as `Agent.begin` makes it; or the one `begun` before, which must be of the same names."""
    user, device = check_name(given.text("user")), check_name(given.text("device"))
    domain, url = check_domain(given.text("domain")), provider_url(given)

    def make(settings: Settings, vault: Vault) -> Client:
        return Client(
            user,
            device,
            domain,
            url,
            settings.trust(),
            vault=vault,
            ssl_context=settings.tls(),
            key_package_slot=settings.key_package_slot,
        )

    if begun is None:
        return agent.begin(settings_of(agent, given), make, entering=entering)
    if (begun.user.name, begun.user.domain, begun.device.name) != (user, domain, device):
        what = f"the account of {begun.user} was begun here, and not finished"
        if entering:
            what = f"this was to become a device of {begun.user}"
        raise AgentError(f"{what}: say the same again, or delete it")
    return begun


@operation("account.create")
async def create(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """A new account with its first device; the same again finishes what was not heard of."""
    client = begin(agent, given, agent.unfinished)
    await register(agent, client)
    return account_view(client)


async def register(agent: Agent, client: Client) -> None:
    """Have it registered. After a refusal nothing is left; without an answer it can be tried again."""
    try:
        await client.register()
    except (PeerError, PrivatePathFailed):
        raise
    except MmrError:
        await agent.abandon()
        raise
    agent.begun()


@operation("account.show")
async def show(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """Who this is."""
    return account_view(agent.client)


@operation("account.trust")
async def trust(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Other trust anchors, or other roots for TLS; the agent ends, and starts with them."""
    old = agent.settings
    if old is None:
        raise NoAccount("there is no account in this home yet")
    settings = replace(
        old,
        trust_dir=str(agent.given_path(given, "trust")),
        tls_ca=str(agent.given_path(given, "tls_ca")) if given.text_or_none("tls_ca") else old.tls_ca,
    )
    found = settings.trust()
    settings.tls()
    agent.keep_settings(settings)
    agent.stopping.set()
    return {"domains": sorted(found.roots)}


@operation("account.passphrase")
async def passphrase(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Another passphrase for the state file."""
    agent.vault.change_passphrase(given.text("new"))
    return {}


@operation("account.delete")
async def delete(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Leave every room, close the account at the provider, delete the state. `local`: the state alone."""
    client = agent.unfinished or agent.client
    problems: list[str] = []
    if client.registered and not given.flag("local"):
        # Raises if the provider is not there: what follows can't be taken back.
        await agent.refresh_requests()
        await agent.background.stop()
        for joined in list(client.rooms.values()):
            try:
                await client.leave(joined)
            except MmrError as error:
                problems.append(f"{joined.room.members_only.state.name or joined.uri.name}: {error}")
        try:
            await client.close_account()
        except MmrError:
            agent.begun()  # it is still there
            raise
    user = str(client.user)
    await agent.abandon()
    return {"user": user, "problems": problems}
