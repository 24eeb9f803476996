"""Contacts, and requests to connect. Internal; `people` is the part that an application sees.

`contacts` has the values, `contact_book` the contacts that there are. `connection_packages` is what strangers
find, `outgoing` and `incoming` are the requests, `connections` what becomes of them, `connection_keys` what
contacts tell each other, `blocking` the end of it, `reconnecting` what is done by itself.
"""
