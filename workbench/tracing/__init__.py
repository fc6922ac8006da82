"""The comparison of two models on the same texts: formulas, scoring, traces, gradients and the diagnosis."""
