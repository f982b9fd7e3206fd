"""ROUGE by its definition, written out again here."""

import itertools
import random
import re
from collections import Counter

import pytest

from harness.records import rouge


def by_hand(reference: str, candidate: str) -> dict[str, float]:
    a, b = (re.findall(r"[a-z0-9]+", text.lower()) for text in (reference, candidate))

    def f1(hits: int, n_a: int, n_b: int) -> float:
        return 2 * hits / (n_a + n_b) if hits else 0.0

    def overlap(n: int) -> float:
        grams = [Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (a, b)]
        return f1((grams[0] & grams[1]).total(), *(g.total() for g in grams))

    common = max(
        len(some)
        for size in range(len(a) + 1)
        for some in itertools.combinations(a, size)
        if _within(some, b)
    )
    longest = f1(common, len(a), len(b))
    return {"rouge1": overlap(1), "rouge2": overlap(2), "rougeL": longest}


def _within(some: tuple[str, ...], words: list[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in some)


def test_scores_are_those_of_the_definition():
    rng = random.Random(0)
    for _ in range(40):
        texts = [
            " ".join(
                rng.choice(["a", "b", "c", "d", "e", "E,", "f."])
                for _ in range(rng.choice([1, 4, 8]))
            )
            for _ in range(2)
        ]
        found = rouge(*texts, stemmer=False)
        assert found == pytest.approx(by_hand(*texts))


def test_the_stemmer_makes_forms_of_a_word_the_same():
    assert rouge("he walks", "he walked")["rouge1"] == 1
    assert rouge("he walks", "he walked", stemmer=False)["rouge1"] == 0.5


def test_an_empty_summary_scores_nothing():
    assert set(rouge("he walks", "").values()) == {0.0}
