"""HTTP: what arrives is parsed, checked and turned into tasks, and results go back the other way. No torch."""
