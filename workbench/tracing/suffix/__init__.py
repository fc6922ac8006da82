"""Suffix search by gradient: the place of a suffix in the chat template, its target loss, and the search."""
