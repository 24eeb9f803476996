"""Oblivious HTTP (RFC 9458) over Binary HTTP (RFC 9292): client, relay, gateway, download proxy.

The protocol core (`bhttp`, `keys`, `capsule`, `chunked`) is bytes in, bytes out; `client`, `relay`,
`gateway` and `download` put it on aiohttp.
"""
