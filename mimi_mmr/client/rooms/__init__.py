"""The rooms that a client is in. Internal; `rooms` is the part that an application sees.

`membership` is one room with this client's state in it, `memberships` holds all of them in memory and vault, and
`roster` says who the members are. `reading` processes incoming `events`, `delivery` sends this client's commits to
hubs, `commits` tries a change until it is accepted, `sending` sends messages, and `repair` sends reports and
reopens. Entering: `creating`, `adding`, `invitations` and `joining`, `join_links`. Leaving: `leaving`; changing the
leaf: `pseudonyms`. `lost_keys` and `adding_again` are the two sides of being added again after a restart lost keys.
`assets` are files.
"""
