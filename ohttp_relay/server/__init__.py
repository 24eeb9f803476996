"""What serves relay, gateway and proxy: processes, the fast path for small requests, metrics, logs.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.server.budget import ByteBudget
from ohttp_relay.server.certificates import ServerCertificate
from ohttp_relay.server.connections import ConnectionLimits, Connections, raise_descriptor_limit
from ohttp_relay.server.logs import configure_logs
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.run import Bind, open_sockets, run, run_on, serve
from ohttp_relay.server.sockets import Sockets

__all__ = [
    "Bind",
    "ByteBudget",
    "ConnectionLimits",
    "Connections",
    "Metrics",
    "ServerCertificate",
    "Sockets",
    "configure_logs",
    "open_sockets",
    "raise_descriptor_limit",
    "run",
    "run_on",
    "serve",
]
