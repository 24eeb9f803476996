"""Connections: contacts, requests to connect, the user directory."""
