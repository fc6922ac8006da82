"""Axis names and array aliases, the same everywhere; jaxtyping checks them in the test run.

response  one trajectory: a prompt with one response (and, free-running, one prefix length)
token     position in the response, padded on the right; position = index + 1 in everything a person sees
k         entries of a top-k list, best first
vocab     the vocabulary rows that both models share
row       response positions flattened, in any order
batch, context, hidden, layer   a model's own axes
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int32

Tokens = Int32[np.ndarray, "response token"]
Mask = Bool[np.ndarray, "response token"]
Scores = Float32[np.ndarray, "response token"]
Counts = Int32[np.ndarray, "response token"]
TopIds = Int32[np.ndarray, "response token k"]
TopScores = Float32[np.ndarray, "response token k"]
