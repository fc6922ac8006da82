"""Prompt sets, their loading, and the made-up world of the embedded pair."""
