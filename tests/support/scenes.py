"""Scenes of the evaluation, each rendered once."""

from __future__ import annotations

from functools import cache

from training import data

held_out = cache(data.held_out)
"""`training.data.held_out`; its views are shared, so leave them as they are."""
