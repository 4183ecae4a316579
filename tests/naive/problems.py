"""Problems with known answers, solved from their definitions case by case, one loop each.

A solver takes what a network sees, codes [T] or numbers [T][F] of one case, and the problem's
parameters. It returns the answers: one for each step, None where nothing is asked, or a list of
one for the whole case.
"""

import math
from itertools import pairwise


def adding(numbers, **_):
    return [sum(value for value, mark in numbers if mark == 1)]


def copy(codes, symbols, alphabet, **_):
    del alphabet
    return [0] * (len(codes) - symbols) + list(codes[:symbols])


def delayed_recall(codes, **_):
    return [codes[0]]


def parity(codes, **_):
    odd = False
    for code in codes:
        if code == 1:
            odd = not odd
    return [int(odd)]


def even_pairs(codes, **_):
    return [sum((a, b) in ((0, 1), (1, 0)) for a, b in pairwise(codes)) % 2]


def cycle_navigation(codes, places, **_):
    place = 0
    for code in codes:
        place = (place + {0: 0, 1: 1, 2: places - 1}[code]) % places
    return [place]


def modular_arithmetic(codes, modulus, **_):
    words = [str(c) if c < modulus else "+-*"[c - modulus] for c in codes]
    return [eval("".join(words)) % modulus]


def dyck(codes, kinds, depth, ask, **_):
    """Classes of ask=next: 0 none open, 1 + k innermost, 1 + kinds + k innermost and deepest."""
    open_brackets, answers, formed = [], [], True
    for code in codes:
        if code < kinds:
            open_brackets.append(code)
        elif not open_brackets or open_brackets.pop() != code - kinds:
            formed = False
        formed = formed and len(open_brackets) <= depth
        if ask == "next":
            deepest = kinds if len(open_brackets) == depth else 0
            answers.append(1 + open_brackets[-1] + deepest if open_brackets else 0)
    return answers if ask == "next" else [int(formed and not open_brackets)]


def bucket_sort(codes, alphabet, **_):
    half = codes.index(alphabet)
    return [None] * half + sorted(codes[:half])


def mqar(codes, pairs, vocabulary, **_):
    """A key counts as a question once, at its last place; values come first among the classes.

    Fillers are drawn from the same vocabulary, so that where the question stands has to be given.
    """
    known = {codes[2 * i]: codes[2 * i + 1] - vocabulary // 2 for i in range(pairs)}
    return [None] * (2 * pairs) + [known.get(code) for code in codes[2 * pairs :]]


def mackey_glass(numbers, delay, horizon, mean, deviation, **_):
    """Go on from the past as it was seen at whole steps, a cubic between them.

    Only the last `horizon` answers need the equation; the others stand in the series itself.
    """
    seen = [mean + deviation * value for (value,) in numbers]
    grid, step = dict(enumerate(seen)), len(seen) - 1
    per_unit = 10

    def at(time):
        low = min(max(math.floor(time), 1), len(grid) - 3)
        total = 0.0
        for i in range(low - 1, low + 3):
            weight = 1.0
            for j in range(low - 1, low + 3):
                if j != i:
                    weight *= (time - j) / (i - j)
            total += weight * grid[i]
        return total

    def slope(x, time):
        before = at(time - delay)
        return 0.2 * before / (1 + before**10) - 0.1 * x

    for unit in range(horizon):
        x = grid[step + unit]
        for part in range(per_unit):
            t, h = step + unit + part / per_unit, 1 / per_unit
            k1 = slope(x, t)
            k2 = slope(x + h / 2 * k1, t + h / 2)
            k3 = slope(x + h / 2 * k2, t + h / 2)
            k4 = slope(x + h * k3, t + h)
            x += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        grid[step + unit + 1] = x
    answers = [(grid[t + horizon] - mean) / deviation for t in range(len(seen))]
    return [None] * delay + answers[delay:]
