"""A member's room: a real MLS group, the Tree Wrap tree, and the identities that the two together give."""
