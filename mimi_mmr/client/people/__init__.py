"""Contacts, and requests to connect. Internal; `people` is the part that an application sees.

`contacts` has the data classes and `contact_book` the list of contacts. `connection_packages` publishes the
packages that strangers need for a request. `outgoing` and `incoming` are the requests, and `connections` makes
contacts of them. `connection_keys` exchanges connection keys with contacts, `blocking` ends connections, and
`reconnecting` does the regular work.
"""
