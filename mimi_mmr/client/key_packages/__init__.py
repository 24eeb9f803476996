"""KeyPackages, which let contacts add this user to rooms.

Internal; `key_packages` is the part that an application sees. `maker` makes them, `outstanding` watches those
that somebody else can get, `shelves` puts them where contacts find them, `claims` takes those of contacts.
`other_devices` says what is needed of the user's other devices.
"""
