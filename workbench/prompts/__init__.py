"""Prompt sets and how they are loaded; the made-up world of the embedded pair."""
