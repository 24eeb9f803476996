"""How a client reaches providers without their learning who it is. Internal.

`private_path` has the routes, `following` a queue over a WebSocket, `queues` requests about queues, `read_queues`
how far each was read, `errands` what is owed to one's own provider.
"""
