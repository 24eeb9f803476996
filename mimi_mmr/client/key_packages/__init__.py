"""KeyPackages, which let contacts add this user to rooms.

Internal; `key_packages` is the part that an application sees. `maker` makes KeyPackages, `outstanding` watches
those that somebody else has or can fetch, `shelves` uploads sets for contacts, and `claims` fetches the sets of
contacts. `other_devices` is the interface to the user's other devices.
"""
