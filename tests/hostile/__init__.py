"""Hostile input of every kind, as one command: `python -m tests.hostile`."""
