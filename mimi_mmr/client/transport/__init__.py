"""How a client reaches providers without showing them who it is. Internal.

`private_path` has the routes, `following` reads a queue over a WebSocket, `queues` has the requests for queues,
`read_queues` the read position of each, and `errands` the requests that still have to reach the user's own
provider.
"""
