"""What a new passphrase has to be."""

from __future__ import annotations

MIN_PASSPHRASE = 8  # characters; NIST SP 800-63B, section 5.1.1.2


def check_new_passphrase(text: str) -> str:
    """Return a passphrase that may be a new one. Raise `ValueError`, which says why it may not."""
    if len(text) < MIN_PASSPHRASE:
        raise ValueError(
            f"expected a passphrase of at least {MIN_PASSPHRASE} characters, got {len(text)}: whoever gets a copy"
            " of the state can try all short ones"
        )
    return text
