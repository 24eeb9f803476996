"""MLS (RFC 9420) as this project uses it: public messages, the public ratchet tree, an engine for members."""
