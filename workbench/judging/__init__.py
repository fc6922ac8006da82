"""Judges, which read samples and return judgements; they know nothing of attacks."""
