"""Near copies among prompts, so that a split keeps them on one side."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from workbench.core.progress import Progress

ALIKE = 0.5
"""The least cosine of two near copies' weighted words."""
_PRODUCTS = 4_000_000
"""Products of weights in one block, at most: about 100 MiB."""
_SHOWN = 20_000
"""From so many texts on, a progress bar is shown."""


def same_wording(text: str) -> str:
    """Return a text without letter case and extra spaces: equal ones are the same request."""
    return " ".join(text.lower().split())


def near_copies(texts: Sequence[str], *, alike: float = ALIKE) -> list[int]:
    """Return a cluster number for each text: near copies, and near copies of those, have the same one.

    A word (lower case, cut to 6 letters, so "tutorials" is "tutorial") has the weight log(n / texts that hold it), and
    two texts are near copies where the cosine of their weights is at least `alike` (above 0). Clusters are numbered in
    the order of their first texts. A text whose words all have weight 0 is its own cluster.

    Exact, without the table of all pairs: near copies share one of their rarest words, those without which the rest of
    a text weighs less than `alike` (prefix filtering, Bayardo et al. 2007), and only such pairs are compared.
    """
    rows: dict[frozenset[str], int] = {}
    of_text = [rows.setdefault(frozenset(w[:6] for w in re.findall(r"\w+", t.lower())), len(rows)) for t in texts]
    if not rows:
        return []
    weights = _weights(list(rows), of_text)
    pairs = [*_alike(weights, alike)]
    first, second = (np.concatenate([p[n] for p in pairs] or [np.zeros(0, int)]) for n in (0, 1))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(rows), len(rows)))
    _, found = connected_components(graph, directed=False)
    empty = np.diff(weights.indptr) == 0
    number: dict[int, int] = {}
    return [number.setdefault(-1 - n if empty[r] else int(found[r]), len(number)) for n, r in enumerate(of_text)]


def _weights(bags: Sequence[frozenset[str]], of_text: Sequence[int]) -> csr_array:
    """Return the words' weights of each bag (bag word), each row of length 1, the rarest words in the first columns."""
    times = np.bincount(of_text)
    held: Counter[str] = Counter()
    for bag, n in zip(bags, times.tolist(), strict=True):
        held.update(dict.fromkeys(bag, n))
    words = sorted((w for w, n in held.items() if n < len(of_text)), key=held.__getitem__)
    column = {w: n for n, w in enumerate(words)}
    indices = [sorted(column[w] for w in bag if w in column) for bag in bags]
    indptr = np.cumsum([0, *map(len, indices)])
    flat = np.fromiter(chain.from_iterable(indices), np.int32, count=indptr[-1])
    data = np.log(len(of_text) / np.array([held[w] for w in words] or [1]))[flat] if len(flat) else np.zeros(0)
    norms = np.sqrt(np.bincount(np.repeat(np.arange(len(bags)), np.diff(indptr)), data**2, len(bags)))
    data = data / np.repeat(norms, np.diff(indptr))
    return csr_array((data, flat, indptr), shape=(len(bags), max(1, len(words))))


def _alike(weights: csr_array, alike: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of pairs whose product is at least `alike`, block by block."""
    count, lengths = weights.shape[0], np.diff(weights.indptr)
    of_entry = np.repeat(np.arange(count), lengths)
    # what a row weighs from each of its words on, the word included: row totals (1) less what stands before it
    before = np.cumsum(weights.data**2) - weights.data**2
    rest = np.maximum(0, 1 - (before - before[np.minimum(weights.indptr[:-1], max(0, len(before) - 1))][of_entry]))
    rare = np.sqrt(rest) >= alike * (1 - 1e-9)
    left = np.sqrt(np.maximum(0, 1 - np.bincount(of_entry[rare], weights.data[rare] ** 2, count)))
    few = np.concatenate([[0], np.cumsum(np.bincount(of_entry[rare], minlength=count))])
    prefix = csr_array((weights.data[rare], weights.indices[rare], few), shape=weights.shape)
    holders = prefix.T.tocsr()
    work = np.concatenate([[0], np.cumsum(np.diff(holders.indptr)[prefix.indices])])[few]  # products up to each row
    start = 0
    with Progress("comparing prompts" if count >= _SHOWN else None, count, "prompts") as progress:
        while start < count:
            end = max(start + 1, int(np.searchsorted(work, work[start] + _PRODUCTS, side="right")) - 1)
            shared = (prefix[start:end] @ holders).tocoo()
            a, b = shared.row + start, shared.col
            likely = (a < b) & (shared.data >= alike - np.maximum(left[a], left[b]) - 1e-9)
            a, b = a[likely], b[likely]
            for n in range(0, len(a), 200_000):
                one, other = a[n : n + 200_000], b[n : n + 200_000]
                close = (weights[one] * weights[other]).sum(axis=1) >= alike
                yield one[close], other[close]
            progress.advance(end - start)
            start = end


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
