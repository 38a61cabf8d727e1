"""Prefix beam search, as both devices do it: a sequence by one worker or thread.

Scores are natural logarithms, in float64. A prefix, the labels so far, is a node of a tree: the
number 1 + t K + k for the k-th of K prefixes, which was first met in frame t, 0 for the empty one.
`nodes[b, t]` holds four arrays of K numbers: parents, last labels, first children and next siblings
(0: none). So a prefix that comes back after it was dropped is the node it was.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..declare import helper
from .language import Model, model_next, model_score

#: less than any score
NEVER = -1e30
# arrays of K numbers in `scores`: of the prefixes, and of those after one more frame
BLANK, OTHER, BONUS, NEXT_BLANK, NEXT_OTHER, NEXT_BONUS, STAY_BLANK, STAY_OTHER, TOP = range(9)
# arrays of K whole numbers in `states`: node, last label, place in the word list, state of the
# language model, the entry of the parent; those after one more frame; where the best come from; and
# in the first place of ROOT, the first child of the empty prefix
NODE, LAST, WORD, MODEL, PARENT, NEXT_NODE, NEXT_LAST, NEXT_WORD, NEXT_MODEL = range(9)
FROM, CLASS, ROOT = 9, 10, 11
NODES, SCORES, STATES = 4, 9, 12


class Guide(NamedTuple):
    """What helps a search: a word list and a language model.

    Attributes:
        child: the place in the word list after a label, or -1.
        words: the token of the word that ends at a place, or -1; nothing where there is no list.
        model: the language model; its tokens are words, or labels where there is no list.
        space: the label between words.
        end: the token of an end, or -1.
        weight: of the model's scores.
        bonus: for each token.
        most: what one more label can add to a score, at most.
    """

    child: Any
    words: Any
    model: Model
    space: int
    end: int
    weight: Any
    bonus: Any
    most: Any


@helper
def either(a: Any, b: Any) -> Any:
    """log(e^a + e^b)."""
    high, low = max(a, b), min(a, b)
    if low <= NEVER:
        return high
    return high + math.log1p(math.exp(low - high))


@helper
def extension(guide: Guide, word: int, state: int, label: int) -> Any:
    """What word list and language model add to a prefix's score for one more label."""
    words, model = guide.words, guide.model
    if words.shape[0] == 0:  # labels are the model's tokens
        if model.first.shape[0] == 0:
            return np.float64(guide.bonus)
        return guide.weight * model_score(model, state, label) + guide.bonus
    if label != guide.space:
        return np.float64(0.0) if guide.child[word, label] >= 0 else np.float64(NEVER)
    if words[word] < 0:
        return np.float64(NEVER)
    if model.first.shape[0] == 0:
        return np.float64(guide.bonus)
    return guide.weight * model_score(model, state, words[word]) + guide.bonus


@helper
def insert(scores: Any, states: Any, b: int, K: int, score: Any, entry: int, label: int) -> None:
    """Put a candidate among the K best, which are in order; the earlier of equals comes first."""
    if score <= NEVER or score <= scores[b, TOP * K + K - 1]:
        return
    k = K - 1
    while k > 0 and scores[b, TOP * K + k - 1] < score:
        scores[b, TOP * K + k] = scores[b, TOP * K + k - 1]
        states[b, FROM * K + k] = states[b, FROM * K + k - 1]
        states[b, CLASS * K + k] = states[b, CLASS * K + k - 1]
        k -= 1
    scores[b, TOP * K + k] = score
    states[b, FROM * K + k] = entry
    states[b, CLASS * K + k] = label


@helper
def begin_search(scores: Any, states: Any, b: int, K: int) -> int:
    """The empty prefix alone; how many there are."""
    scores[b, BLANK * K] = 0.0
    scores[b, OTHER * K] = NEVER
    scores[b, BONUS * K] = 0.0
    states[b, NODE * K] = 0
    states[b, LAST * K] = -1
    states[b, WORD * K] = 0
    states[b, MODEL * K] = 0
    states[b, PARENT * K] = -1
    states[b, ROOT * K] = 0
    return 1


@helper
def node_of(
    nodes: Any, states: Any, b: int, t: int, k: int, K: int, parent: int, label: int
) -> int:
    """The node of a prefix with one label more: the one it has had before, or a new one, the k-th
    of frame t."""
    t1, k1 = (parent - 1) // K, (parent - 1) % K
    head = states[b, ROOT * K] if parent == 0 else nodes[b, t1, 2 * K + k1]
    node = head
    while node > 0:
        t0, k0 = (node - 1) // K, (node - 1) % K
        if nodes[b, t0, K + k0] == label:
            return node
        node = nodes[b, t0, 3 * K + k0]
    node = 1 + t * K + k
    nodes[b, t, k], nodes[b, t, K + k] = parent, label
    nodes[b, t, 2 * K + k], nodes[b, t, 3 * K + k] = 0, head
    if parent == 0:
        states[b, ROOT * K] = node
    else:
        nodes[b, t1, 2 * K + k1] = node
    return node


@helper
def candidates(
    y: Any, guide: Guide, scores: Any, states: Any, b: int, t: int, K: int, count: int, blank: int
) -> None:
    """The K best prefixes after frame t: those there are, and those with one label more."""
    C = y.shape[2]
    for k in range(K):
        scores[b, TOP * K + k] = NEVER
    for j in range(count):
        last = states[b, LAST * K + j]
        whole = either(scores[b, BLANK * K + j], scores[b, OTHER * K + j])
        scores[b, STAY_BLANK * K + j] = whole + y[b, t, blank]
        other = np.float64(NEVER)
        if last >= 0:
            other = scores[b, OTHER * K + j] + y[b, t, last]
            i = states[b, PARENT * K + j]
            if i >= 0:  # its parent with its last label is it, too
                reached = scores[b, BLANK * K + i]
                if states[b, LAST * K + i] != last:
                    reached = either(reached, scores[b, OTHER * K + i])
                other = either(other, reached + y[b, t, last])
        scores[b, STAY_OTHER * K + j] = other
        whole = either(scores[b, STAY_BLANK * K + j], other) + scores[b, BONUS * K + j]
        insert(scores, states, b, K, whole, j, -1)
    for i in range(count):
        last = states[b, LAST * K + i]
        ended = scores[b, BLANK * K + i]
        whole = either(ended, scores[b, OTHER * K + i])
        for label in range(C):
            reached = ended if label == last else whole
            score = reached + y[b, t, label] + scores[b, BONUS * K + i]
            if label == blank or score + guide.most <= scores[b, TOP * K + K - 1]:
                continue
            known = False
            for j in range(count):
                if states[b, PARENT * K + j] == i and states[b, LAST * K + j] == label:
                    known = True
            if known:
                continue
            score += extension(guide, states[b, WORD * K + i], states[b, MODEL * K + i], label)
            insert(scores, states, b, K, score, i, label)


@helper
def chosen(
    y: Any, guide: Guide, nodes: Any, scores: Any, states: Any, b: int, t: int, K: int
) -> int:
    """The best candidates become the prefixes; how many there are."""
    words, model = guide.words, guide.model
    count = 0
    while count < K and scores[b, TOP * K + count] > NEVER:
        k, i, label = count, states[b, FROM * K + count], states[b, CLASS * K + count]
        word, state = states[b, WORD * K + i], states[b, MODEL * K + i]
        states[b, NEXT_NODE * K + k] = states[b, NODE * K + i]
        states[b, NEXT_LAST * K + k] = states[b, LAST * K + i]
        scores[b, NEXT_BONUS * K + k] = scores[b, BONUS * K + i]
        if label < 0:
            scores[b, NEXT_BLANK * K + k] = scores[b, STAY_BLANK * K + i]
            scores[b, NEXT_OTHER * K + k] = scores[b, STAY_OTHER * K + i]
        else:
            reached = scores[b, BLANK * K + i]
            if states[b, LAST * K + i] != label:
                reached = either(reached, scores[b, OTHER * K + i])
            scores[b, NEXT_BLANK * K + k] = NEVER
            scores[b, NEXT_OTHER * K + k] = reached + y[b, t, label]
            scores[b, NEXT_BONUS * K + k] += extension(guide, word, state, label)
            node = node_of(nodes, states, b, t, k, K, states[b, NODE * K + i], label)
            states[b, NEXT_NODE * K + k] = node
            states[b, NEXT_LAST * K + k] = label
            if words.shape[0] == 0:
                if model.first.shape[0] > 0:
                    state = model_next(model, state, label)
            elif label != guide.space:
                word = guide.child[word, label]
            else:
                if model.first.shape[0] > 0:
                    state = model_next(model, state, words[word])
                word = 0
        states[b, NEXT_WORD * K + k] = word
        states[b, NEXT_MODEL * K + k] = state
        count += 1
    for k in range(count):
        scores[b, BLANK * K + k] = scores[b, NEXT_BLANK * K + k]
        scores[b, OTHER * K + k] = scores[b, NEXT_OTHER * K + k]
        scores[b, BONUS * K + k] = scores[b, NEXT_BONUS * K + k]
        states[b, NODE * K + k] = states[b, NEXT_NODE * K + k]
        states[b, LAST * K + k] = states[b, NEXT_LAST * K + k]
        states[b, WORD * K + k] = states[b, NEXT_WORD * K + k]
        states[b, MODEL * K + k] = states[b, NEXT_MODEL * K + k]
    for k in range(count):
        parent, node = -1, states[b, NODE * K + k]
        if node > 0:
            before = (node - 1) // K
            wanted = nodes[b, before, (node - 1) - before * K]
            for i in range(count):
                if states[b, NODE * K + i] == wanted:
                    parent = i
        states[b, PARENT * K + k] = parent
    return count


@helper
def close_words(
    guide: Guide, nodes: Any, scores: Any, states: Any, b: int, count: int, K: int
) -> int:
    """A space at the end is left out, as words have spaces between them: such a prefix hands its
    paths over to the one without, or becomes it. How many prefixes are left."""
    left = count
    for k in range(count if guide.words.shape[0] > 0 else 0):
        if states[b, LAST * K + k] != guide.space:
            continue
        i = states[b, PARENT * K + k]
        if i >= 0:
            whole = either(scores[b, BLANK * K + k], scores[b, OTHER * K + k])
            scores[b, OTHER * K + i] = either(scores[b, OTHER * K + i], whole)
            scores[b, BLANK * K + k] = scores[b, OTHER * K + k] = 4.0 * NEVER
            left -= 1
        else:
            node = states[b, NODE * K + k]
            states[b, NODE * K + k] = nodes[b, (node - 1) // K, (node - 1) % K]
    return left


@helper
def final_score(guide: Guide, scores: Any, states: Any, b: int, k: int, K: int) -> Any:
    """The score of a whole sequence: its last word has to be one, and the model says how likely an
    end is."""
    words, model, weight = guide.words, guide.model, guide.weight
    total = either(scores[b, BLANK * K + k], scores[b, OTHER * K + k]) + scores[b, BONUS * K + k]
    word, state = states[b, WORD * K + k], states[b, MODEL * K + k]
    if words.shape[0] > 0 and word != 0:
        token = words[word]
        if token < 0:
            return total + NEVER
        total += guide.bonus
        if model.first.shape[0] > 0:
            total += weight * model_score(model, state, token)
            state = model_next(model, state, token)
    if model.first.shape[0] > 0 and guide.end >= 0:
        total += weight * model_score(model, state, guide.end)
    return total


@helper
def search(
    y: Any, lengths: Any, guide: Guide, labels: Any, counts: Any, found: Any, nodes: Any,
    scores: Any, states: Any, b: int, blank: int,
) -> None:  # fmt: skip
    """Prefix beam search in one sequence; writes the best prefixes."""
    T, K = y.shape[1], nodes.shape[2] // NODES
    frames = T
    if lengths.shape[0] > 0:
        frames = min(max(lengths[b], 0), T)
    count = begin_search(scores, states, b, K)
    for t in range(frames):
        candidates(y, guide, scores, states, b, t, K, count, blank)
        count = chosen(y, guide, nodes, scores, states, b, t, K)
    for k in range(K):
        scores[b, TOP * K + k] = 8.0 * NEVER
    left = close_words(guide, nodes, scores, states, b, count, K)
    for k in range(count):
        total = final_score(guide, scores, states, b, k, K)
        place = k
        while place > 0 and scores[b, TOP * K + place - 1] < total:
            scores[b, TOP * K + place] = scores[b, TOP * K + place - 1]
            states[b, FROM * K + place] = states[b, FROM * K + place - 1]
            place -= 1
        scores[b, TOP * K + place] = total
        states[b, FROM * K + place] = k
    for k in range(labels.shape[1]):
        size = 0
        for t in range(T):
            labels[b, k, t] = -1
        if k < left:
            node = states[b, NODE * K + states[b, FROM * K + k]]
            while node > 0:
                t = (node - 1) // K
                place = (node - 1) - t * K
                labels[b, k, size] = nodes[b, t, K + place]
                node = nodes[b, t, place]
                size += 1
            for t in range(size // 2):
                kept = labels[b, k, t]
                labels[b, k, t] = labels[b, k, size - 1 - t]
                labels[b, k, size - 1 - t] = kept
        counts[b, k] = size if k < left else -1
        found[b, k] = scores[b, TOP * K + k] if k < left else NEVER
