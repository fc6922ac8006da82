"""Two models read one text: formulas, scoring, traces, gradients and the diagnosis."""
