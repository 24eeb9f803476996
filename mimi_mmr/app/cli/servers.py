"""`mimi-mmr serve` and the other commands of people who run a provider or the demonstration."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.failures import report
from mimi_mmr.app.cli.options import JsonOption
from mimi_mmr.errors import ConfigError, MmrError
from mimi_mmr.uris import check_domain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mimi_mmr.provider.asset_host import AssetHost
    from mimi_mmr.provider.run import Served
    from mimi_mmr.provider.settings import Settings

# Each command here imports the provider's modules itself, so that other commands and completion start fast.
log = logging.getLogger(__name__)

app = typer.Typer()

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file. Environment variables MIMI_MMR_… override it."),
]


@app.command()
def serve(config: ConfigFile = None, as_json: JsonOption = False) -> None:
    """Run a provider: hub, accounts, deliveries, relay and gateway."""
    _run("serve", _serve(config, as_json), as_json)


@app.command("asset-host")
def asset_host(config: ConfigFile = None, as_json: JsonOption = False) -> None:
    """Run an asset host."""
    _run("asset-host", _serve_assets(config, as_json), as_json)


@app.command()
def settings(as_json: JsonOption = False) -> None:
    """Print every setting of `serve` and of `asset-host`, with its default."""
    from mimi_mmr.provider.settings import ASSETS_PREFIX, PREFIX, AssetHostSettings, Settings, settings_table
    from mimi_mmr.provider.settings.names import every

    if as_json:
        kinds: dict[str, type[BaseModel]] = {"serve": Settings, "asset-host": AssetHostSettings}
        keys = ("setting", "default", "what")
        terminal.show_json(
            {name: [dict(zip(keys, row, strict=True)) for row in every(kind)] for name, kind in kinds.items()}
        )
        return
    typer.echo(f"`mimi-mmr serve`, with variables `{PREFIX}…`:\n\n{settings_table(Settings)}\n")
    typer.echo(
        f"`mimi-mmr asset-host`, with variables `{ASSETS_PREFIX}…`:\n\n{settings_table(AssetHostSettings)}"
    )


@app.command()
def ca(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="The provider's domain.")],
    data_dir: Annotated[Path, typer.Option(help="Directory for its private key.")] = Path("data"),
    trust_dir: Annotated[
        Path, typer.Option(help="Directory for its root certificate, which others copy.")
    ] = Path("trust"),
    as_json: JsonOption = False,
) -> None:
    """Make a provider's CA."""
    from mimi_mmr.provider.key_files import make_authority

    try:
        check_domain(domain)
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        trust_dir.mkdir(parents=True, exist_ok=True)
        make_authority(domain, data_dir / "ca.pem", trust_dir, time.time())
    except FileExistsError as error:
        why = (
            f"{error.filename} exists; a new CA would orphan every device that the old one certified"
            " (move the file away if you want that)"
        )
        _fail("ca", why, as_json)
    except (MmrError, OSError) as error:
        _fail("ca", str(error), as_json)
    if as_json:
        terminal.show_json({"root": f"{trust_dir / domain}.pem"})
    else:
        terminal.say(f"{trust_dir / domain}.pem")


@app.command()
def demo(
    members: Annotated[int, typer.Option(min=0, max=2000, help="Fill the room with this many more.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="Keep databases, logs and network frames in this directory.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeat a run's choices (keys are always fresh).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the demonstration: three providers, four people, one room, and what each server saw of it."""
    from rich.console import Console

    from mimi_mmr.lab.demo.run import run_demo  # slow to import, and no part of a server

    problems: list[str] = []
    try:
        status = (
            run_demo(
                members, keep, seed, Console(stderr=True), report=terminal.show_json, failed=problems.append
            )
            if as_json
            else run_demo(members, keep, seed)
        )
    except ConfigError as error:
        _fail("demo", str(error), as_json)
    if problems:
        report("demo", "demo", problems[0], as_json, status)
    raise typer.Exit(status)


def _announce(served: Served, name: str, as_json: bool) -> None:
    """Print one line on stdout: the server is ready, at which address."""
    from mimi_mmr.provider.run import announce

    if not as_json:
        announce(served, name)
        return
    terminal.show_json(
        {"serving": name, "addresses": [f"{host}:{port}" for host, port, *_ in served.addresses]}
    )
    sys.stdout.flush()


async def _serve(config: Path | None, as_json: bool) -> None:
    from mimi_mmr.provider import logs
    from mimi_mmr.provider.app import Provider
    from mimi_mmr.provider.run import listen, until_signalled
    from mimi_mmr.provider.settings import activated_socket, load_settings, socket_was_passed

    settings = load_settings(config)
    logs.configure(settings.log_level)
    if socket_was_passed() and activated_socket(settings.listen) is None:
        log.warning("a socket was passed (LISTEN_FDS) and is not used, since listen is set")
    async with AsyncExitStack() as stack:
        provider = Provider(settings)
        stack.push_async_callback(provider.close)
        app = await provider.start()
        host = await _beside(settings, stack)
        limits, servers = settings.connections, 1 if host is None else 2
        served = await listen(app, settings.listen, settings.tls, limits.limits, limits.idle_seconds, servers)
        stack.push_async_callback(served.cleanup)
        hosting = None if host is None else host[1]

        def reload() -> None:
            for one in (served, hosting):
                if one is not None:
                    one.certificate.reload()
            provider.reload_trust()

        await until_signalled(lambda: _announce(served, settings.domain, as_json), reload)
        provider.stopping()
        if host is not None:
            host[0].drain.stop()
            await host[0].drain.finished()
        await provider.finished()


async def _beside(settings: Settings, stack: AsyncExitStack) -> tuple[AssetHost, Served] | None:
    """Start the asset host in this process, if the settings say so."""
    from mimi_mmr.protocol.assets import MAX_ASSET
    from mimi_mmr.provider.asset_host import AssetHost
    from mimi_mmr.provider.record import Recorder
    from mimi_mmr.provider.run import listen

    wanted = settings.asset_host
    if wanted is None or wanted.listen is None:
        return None
    record = Recorder(settings.record_dir)
    host = AssetHost(settings.data_dir / "assets", wanted.upload_token, MAX_ASSET, record)
    limits = settings.connections
    served = await listen(
        host.app(),
        wanted.listen,
        settings.tls,
        limits.limits,
        limits.idle_seconds,
        servers=2,
        setting="asset_host.listen",
    )
    stack.push_async_callback(served.cleanup)
    return host, served


async def _serve_assets(config: Path | None, as_json: bool) -> None:
    from mimi_mmr.provider import logs
    from mimi_mmr.provider.asset_host import AssetHost
    from mimi_mmr.provider.record import Recorder
    from mimi_mmr.provider.run import listen, until_signalled
    from mimi_mmr.provider.settings import load_asset_host_settings

    settings = load_asset_host_settings(config)
    logs.configure(settings.log_level)
    host = AssetHost(
        settings.data_dir, settings.upload_token, settings.max_asset_bytes, Recorder(settings.record_dir)
    )
    limits = settings.connections
    served = await listen(host.app(), settings.listen, settings.tls, limits.limits, limits.idle_seconds)
    try:
        await until_signalled(lambda: _announce(served, "asset host", as_json), served.certificate.reload)
        host.drain.stop()
        await host.drain.finished()
    finally:
        await served.cleanup()


def _run(command: str, work: Coroutine[Any, Any, None], as_json: bool) -> None:
    from mimi_mmr.provider.run import prepare_process, run
    from ohttp_relay.errors import OhttpError

    prepare_process()
    try:
        run(work)
    except (MmrError, OhttpError, OSError) as error:
        _fail(command, str(error), as_json)


def _fail(command: str, message: str, as_json: bool) -> NoReturn:
    report(command, ConfigError.code, message, as_json)
