"""Near copies among prompts, so that a split keeps them on one side."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

ALIKE = 0.5
"""The least cosine of two near copies' weighted words."""


def same_wording(text: str) -> str:
    """Return a text without letter case and extra spaces: equal ones are the same request."""
    return " ".join(text.lower().split())


def near_copies(texts: Sequence[str], *, alike: float = ALIKE) -> list[int]:
    """Return a cluster number for each text: near copies, and near copies of those, have the same one.

    A word (lower case, cut to 6 letters, so "tutorials" is "tutorial") has the weight log(n / texts that hold it), and
    two texts are near copies where the cosine of their weights is at least `alike` (above 0). Clusters are numbered in
    the order of their first texts. A text whose words all have weight 0 is its own cluster.
    """
    if not texts:
        return []
    bags = [{w[:6] for w in re.findall(r"\w+", t.lower())} for t in texts]
    held = Counter(w for bag in bags for w in bag)
    column = {w: n for n, w in enumerate(held)}
    weights = np.zeros((len(texts), len(column) or 1))
    for row, bag in enumerate(bags):
        for w in bag:
            weights[row, column[w]] = np.log(len(texts) / held[w])
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    weights = np.divide(weights, norms, out=np.zeros_like(weights), where=norms > 0)
    _, found = connected_components(weights @ weights.T >= alike, directed=False)
    number = {c: n for n, c in enumerate(dict.fromkeys(found.tolist()))}
    return [number[c] for c in found.tolist()]


def parts_apart(texts: Sequence[str], shares: Sequence[float], *, seed: int = 0) -> list[list[int]]:
    """Split texts into lists of row numbers of about these shares; near copies stay together.

    Clusters are dealt in an order drawn from `seed`, each to the part that is furthest below its share.
    """
    clusters: dict[int, list[int]] = {}
    for row, cluster in enumerate(near_copies(texts)):
        clusters.setdefault(cluster, []).append(row)
    order = list(clusters.values())
    random.Random(seed).shuffle(order)
    order.sort(key=len, reverse=True)
    parts: list[list[int]] = [[] for _ in shares]
    for rows in order:
        short = [share * len(texts) - len(part) for share, part in zip(shares, parts, strict=True)]
        parts[short.index(max(short))] += rows
    return [sorted(part) for part in parts]
