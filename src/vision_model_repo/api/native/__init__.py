"""The native protocol, the Vision Models API."""
