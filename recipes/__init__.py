"""Recipes that rebuild the embedded pair and the shipped adapter, and generate the lessons. Not part of the wheel."""
