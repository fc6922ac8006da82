"""Near copies among prompts, so that a split keeps them on one side."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from workbench.core.progress import Progress

ALIKE = 0.5
"""The least cosine of two near copies' weighted words."""
_PRODUCTS = 1_000_000
"""Products of weights in one block, at most: about 50 MiB."""
_LEFT = 0.65
"""The most that a text's commonest words weigh that are compared last, in parts of `alike`; at 1 most pairs are."""
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
    a text weighs less than `alike` (prefix filtering, Bayardo et al. 2007). Only pairs for which the products of these
    words leave the cosine open are compared whole.
    """
    words: dict[str, int] = {}
    bags: dict[tuple[int, ...], int] = {}
    of_text = []
    for text in texts:
        bag = {words.setdefault(w[:6], len(words)) for w in re.findall(r"\w+", text.lower())}
        of_text.append(bags.setdefault(tuple(sorted(bag)), len(bags)))
    if not words:
        return list(range(len(texts)))
    weights = _weights(list(bags), np.bincount(of_text))
    pairs = [*_alike(weights, alike)]
    first, second = (np.concatenate([p[n] for p in pairs]) for n in (0, 1))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(bags), len(bags)))
    _, found = connected_components(graph, directed=False)
    empty = np.diff(weights.indptr) == 0
    number: dict[int, int] = {}
    return [number.setdefault(-1 - n if empty[b] else int(found[b]), len(number)) for n, b in enumerate(of_text)]


def _weights(bags: Sequence[tuple[int, ...]], times: Int[np.ndarray, " bag"]) -> csr_array:
    """Return the words' weights of each bag (bag word), each row of length 1, the rarest words in the first columns.

    `times` says how many texts have each bag; a word that all texts have is left out.
    """
    lengths = [len(bag) for bag in bags]
    word = np.fromiter(chain.from_iterable(bags), np.int64, count=sum(lengths))
    row = np.repeat(np.arange(len(bags)), lengths)
    held = np.bincount(word, times[row])
    column = np.empty(len(held), np.int64)
    column[np.argsort(held, kind="stable")] = np.arange(len(held))
    data = np.log(times.sum() / held)[word]
    norms = np.sqrt(np.bincount(row, data**2, len(bags)))
    there = data > 0
    row, data = row[there], (data[there] / norms[row[there]]).astype(np.float64)
    made: csr_array = coo_array((data, (row, column[word[there]])), shape=(len(bags), len(held))).tocsr()
    made.sort_indices()
    return made


def _alike(weights: csr_array, alike: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of pairs whose product is at least `alike`, block by block."""
    count, lengths = weights.shape[0], np.diff(weights.indptr)
    of_entry = np.repeat(np.arange(count), lengths)
    # what a row weighs from each of its words on, the word included: row totals (1) less what stands before it
    before = np.cumsum(weights.data**2) - weights.data**2
    rest = np.maximum(0, 1 - (before - before[np.minimum(weights.indptr[:-1], max(0, len(before) - 1))][of_entry]))
    rare = np.sqrt(rest) >= _LEFT * alike
    left = np.sqrt(np.maximum(0, 1 - np.bincount(of_entry[rare], weights.data[rare] ** 2, count)))
    few = np.concatenate([[0], np.cumsum(np.bincount(of_entry[rare], minlength=count))])
    prefix = csr_array((weights.data[rare], weights.indices[rare], few), shape=weights.shape)
    holders = prefix.T.tocsr()
    work = np.concatenate([[0], np.cumsum(np.diff(holders.indptr)[prefix.indices])])[few]  # products up to each row
    start = 0
    with Progress("comparing prompts" if count >= _SHOWN else None, count, "prompts") as progress:
        while start < count:
            end = max(start + 1, int(np.searchsorted(work, work[start] + _PRODUCTS, side="right")) - 1)
            shared = (prefix[start:end] @ holders[:, start:]).tocoo()
            a, b = shared.row + start, shared.col + start
            likely = (a < b) & (shared.data >= alike - np.maximum(left[a], left[b]) - 1e-9)
            a, b = a[likely], b[likely]
            for n in range(0, max(1, len(a)), 200_000):
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
