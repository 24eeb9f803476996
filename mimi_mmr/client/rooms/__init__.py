"""The rooms that a client is in. Internal; `rooms` is the part that an application sees.

`membership` is one room as this client is in it, `memberships` all of them, in memory and vault; `roster` says
who is there. `reading` takes what comes (`events`), `delivery` gets this client's commits to hubs, `commits` asks
for one until it is done, `sending` sends messages, `repair` asks hubs for help. Ways in: `creating`, `adding`,
`invitations` and `joining`, `join_links`. Ways out and on: `leaving`, `pseudonyms`. `lost_keys` and
`adding_again` are the two sides of keys that a restart lost. `assets` are files.
"""
