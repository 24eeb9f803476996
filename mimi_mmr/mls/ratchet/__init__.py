"""The public ratchet tree (RFC 9420, section 7), followed from public messages. Internal."""
