"""Attacks, answers, capability and the scorecard; sweeps of penalties and comparisons of training arms."""
