"""How the embedded tabletop checkpoints were made. Not part of the installed package."""
