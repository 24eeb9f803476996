"""A user's devices among themselves. Internal; `devices` is the part that an application sees.

All are in every room, under one user pseudonym, and know the same contacts and keys. `devices_room` is where they
speak, `sharing` what they say, `known_devices` what each knows of the others. `inviting` and `entering` are the
two sides of a further device's way in (`device_code`: its code, channels and messages), `removal` is the way out
of a lost one. `package_requests` asks the others for KeyPackages, `missing` adds those that are not in a room.
"""
