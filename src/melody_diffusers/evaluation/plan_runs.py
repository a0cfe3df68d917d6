"""How much of a plan stands in training data, token by token, and how much would by chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Run(NamedTuple):
    """Tokens of a plan that stand in another.

    Attributes:
        length: how many.
        start: of the first, in the plan. plan: number of the other. start_there: of the first, in the other.
    """

    length: int
    start: int
    plan: int
    start_there: int


def longest_run(tokens: Sequence[int], plans: Sequence[Sequence[int] | np.ndarray]) -> Run:
    """The longest run of tokens, (S,), that stands in one of the plans; of several as long, the first in the plans.

    All runs of the plan are in a suffix automaton (Blumer et al. 1985), through which the others pass token by token:
    the time is that of reading them once.
    """
    steps, links, lengths, ends = _suffix_automaton(tokens)
    best = Run(0, 0, 0, 0)
    for number, plan in enumerate(plans):
        state = length = 0
        for place, token in enumerate(np.asarray(plan).tolist()):
            while state and token not in steps[state]:
                state = links[state]
                length = lengths[state]
            if token in steps[state]:
                state, length = steps[state][token], length + 1
            if length > best.length:
                best = Run(length, ends[state] - length + 1, number, place - length + 1)
    return best


def _suffix_automaton(tokens: Sequence[int]) -> tuple[list[dict[int, int]], list[int], list[int], list[int]]:
    """For each state its steps, its suffix link, the length of its longest run and where that first ends."""
    steps, links, lengths, ends = [dict[int, int]()], [-1], [0], [-1]
    last = 0
    for place, token in enumerate(tokens):
        new = len(steps)
        steps.append({})
        links.append(0)
        lengths.append(lengths[last] + 1)
        ends.append(place)
        state, last = last, new
        while state != -1 and token not in steps[state]:
            steps[state][token] = new
            state = links[state]
        if state == -1:
            continue
        target = steps[state][token]
        if lengths[target] == lengths[state] + 1:
            links[new] = target
            continue
        copy = len(steps)
        steps.append(dict(steps[target]))
        links.append(links[target])
        lengths.append(lengths[state] + 1)
        ends.append(ends[target])
        links[target] = links[new] = copy
        while state != -1 and steps[state].get(token) == target:
            steps[state][token] = copy
            state = links[state]
    return steps, links, lengths, ends


def chance_of_run(num_tokens: int, plans: Sequence[Sequence[int] | np.ndarray], length: int) -> float:
    """How many common runs of `length` tokens or more to expect between the plans and one that knows nothing of them.

    The model of chance: a plan of `num_tokens` is drawn from a Markov chain in which one token follows another as often
    as it does in the plans, and so are they, independently. Two such chains show the same `length` tokens with the
    probability p' (P o P)^(length - 1) 1, where p holds the squared frequencies of the tokens and P o P the squared
    transitions; that, times the pairs of places where a run may start, is the expected number, and where it is small
    also an upper bound of the probability that there is one. Music repeats itself over more than one token, and all
    pieces of a style have figures in common: that a run is unlikely by this model says that it is more than a habit of
    single tokens, not that it was learned by heart. Held-out pieces, taken as plans, tell what is usual.
    """
    arrays = [np.asarray(plan, dtype=np.int64) for plan in plans if len(plan)]
    if not arrays or length < 1:
        return 0.0
    places = max(0, num_tokens - length + 1) * sum(max(0, len(plan) - length + 1) for plan in arrays)
    every = np.concatenate(arrays)
    size = int(every.max()) + 1
    squares: np.ndarray = (np.bincount(every, minlength=size) / len(every)) ** 2  # (C,)
    pairs = [plan[:-1] * size + plan[1:] for plan in arrays]
    pair, count = np.unique(np.concatenate(pairs), return_counts=True)
    before, after = np.divmod(pair, size)
    transition = (count / np.bincount(before, weights=count, minlength=size)[before]) ** 2
    for _ in range(length - 1):
        squares = np.bincount(after, weights=squares[before] * transition, minlength=size)
        if not squares.any():
            break
    return float(places * squares.sum())
