"""What a hostile caller would send, as generators and attacks; `python -m tests.hostile` runs them all."""
