"""What tells robustness from an attack that fails; docs/rigour.md says it all."""

EXAMINED = 8
"""How many test examples, the first ones, a subject alone is examined on."""
