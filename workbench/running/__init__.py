"""Notebooks run without a screen: parameters, kernel, runs, batches, comparison of runs, cache."""
