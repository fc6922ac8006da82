"""Real tokenizers and templates on tiny random models of each family: `make families` (development only)."""
