"""Attacks on the server, as data and as one command with bounded time."""
