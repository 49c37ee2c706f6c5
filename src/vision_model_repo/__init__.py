"""A self-hosted server for vision foundation models."""

__version__ = "0.1.0"
