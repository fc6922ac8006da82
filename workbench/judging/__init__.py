"""Judges: what reads a text and decides what it is. A judge knows samples only, no attack."""
