"""Recipes, outside the wheel, that rebuild the embedded pair and the shipped adapter and generate the lessons."""
