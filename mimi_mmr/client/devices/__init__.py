"""The devices of one user, and how they work together. Internal; `devices` is the part that an application sees.

All devices are in every room, under one user pseudonym, and know the same contacts and keys. `devices_room` is the
room in which they talk to each other, `sharing` sends and takes their shared state, and `known_devices` lists them
with their leaves. `inviting` and `entering` are the two sides of adding a further device (`device_code` has its
code, channels and messages), and `removal` removes a lost one. `package_requests` asks the other devices for
KeyPackages, and `missing` adds devices that are missing in a room.
"""
