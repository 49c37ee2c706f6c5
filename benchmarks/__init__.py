"""What is claimed about speed, measured: each module prints one table, ours and the other way in one run."""
