"""Suffix search by gradient: where a suffix goes in the chat template, its target loss, and the search for it."""
