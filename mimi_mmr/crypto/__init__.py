"""Cryptography, all of it in one place to audit: secrets, signatures, sealed boxes, certificates."""
