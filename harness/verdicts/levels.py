"""The levels and thresholds of the rule: all numbers that a word depends on."""

from __future__ import annotations

from typing import Final

DIRECTION: Final = 0.01
"""Of the claims that an arm is harder or easier to attack: one-sided, after Holm over
the contrasts of a suite."""
EQUIVALENCE: Final = 0.025
"""Of each one-sided test that a difference is within a margin."""
CLAIM: Final = 0.025
"""Of a suite's claim, and of its opposite: one-sided, after Holm over its group."""
SATURATED: Final = 0.95
"""Success of so many documents on both arms leaves nothing to compare."""
QUESTION: Final = 0.01
"""Of the claims that questions rest on, and of those of masking, one-sided."""
UNITS: Final = 20
"""Fewer documents than this say nothing."""
ERRORS: Final = 0.01
"""The share of rows in error on a side, above which nothing directional is said."""
MATCH_NATS: Final = 0.05
"""Clean losses within this of each other are called equal."""
ZEROS: Final = 0.001
"""By how much the share of gains that are zero or not finite may be larger."""
SLOPE: Final = 0.05
"""By how much more a gradient may be off the slope, relative; on the reference arm, by
how much at all."""
WHOLLY_OFF: Final = 1.0
"""A gradient that is further off the slope than this counts as so far off: it tells no
less, and one example cannot outweigh all others."""
FIDELITY_SHARE: Final = 0.5
"""Of the reference arm's first-order fidelity, how much an arm has to have."""
FOUND_SHARE: Final = 0.5
"""Of what was planted: an attack that reaches so much of it has found it."""
FOUND_ON: Final = 0.75
"""The share of documents on which a planted weakness has to be found."""
FOUND_LEVEL: Final = 0.95
"""Of the one-sided bound that this share has to be above."""
POWER: Final = 0.8
"""With which the smallest detectable difference is found."""
