"""Certificates: what is known of a model's feed-forward networks, and what is not.

Non-negative W1 and W2 with a non-decreasing activation make each network monotone in
every coordinate, whatever training did. Six checks examine the model itself: its
effective weights, the activation over its working range, Jacobians and boxes at real
hidden vectors, and whether any two real inputs are comparable at all. Nothing follows
for the model as a whole, and the certificate says so.

What was promised and could not be examined counts as a failure: no matrix found, fewer
networks than the model has layers, or a weight that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from harness.api import FFN, Anatomy, Constraint, ModelAdapter, Projection
from harness.base import Ids
from harness.models.activations import NON_DECREASING
from harness.models.devices import full_tensor
from harness.models.ffn.examination import (
    MINIMUM_VECTORS,
    RANGE_MARGIN,
    ROUNDING,
    Examination,
    examine,
    hidden_vectors,
)
from harness.records import Certificate, CertificateCheck

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Status = Literal["pass", "fail", "not_promised", "not_applicable"]


def certify(
    adapter: ModelAdapter[Any],
    model: PreTrainedModel,
    constraint: Constraint[Any],
    inputs: Sequence[Ids],
) -> Certificate:
    """Examine a model, constrained or frozen, on real inputs.

    `inputs` are arrays of token ids with 64 tokens or more in all. The model may be on
    any device; it is left as it was. Raises CellError where there are too few tokens.
    """
    anatomy = adapter.anatomy(model)
    claim = _Claim.of(anatomy, constraint)
    vectors = hidden_vectors(anatomy, inputs)
    with torch.no_grad():
        found = [examine(ffn, vectors[ffn.layer]) for ffn in claim.ffns]
        weights = _weights_check(claim)
    checks = [
        weights,
        _activation_check(claim, found),
        _jacobian_check(claim, found),
        _box_check(claim, found),
        _order_check(claim, found),
        _end_to_end_check(),
    ]
    return _certificate(claim, checks)


def minimum_weight(anatomy: Anatomy, constraint: Constraint[Any]) -> float:
    """Return the smallest effective weight among the promised matrices.

    If nothing is promised, it is the smallest of all feed-forward weights. NaN if any
    weight is NaN.
    """
    matrices = constraint.promised(anatomy) or _all_matrices(anatomy)
    with torch.no_grad():
        smallest = [full_tensor(p.weight.min()) for p in matrices]
        return float(torch.stack(smallest).min())


# --- the claim ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Claim:
    """What a constraint promises for a model, and which parts that concerns."""

    anatomy: Anatomy
    made: bool
    """True where the constraint promises anything."""
    matrices: tuple[Projection, ...]
    """The promised matrices that the model has; all where nothing is promised."""
    expected: int
    """How many matrices had to be examined."""
    ffns: tuple[FFN, ...]
    """The networks to examine: those promised to be monotone, or else all."""
    monotone: bool
    """True where `ffns` are promised to be monotone."""

    @classmethod
    def of(cls, anatomy: Anatomy, constraint: Constraint[Any]) -> _Claim:
        made = type(constraint).promised is not Constraint.promised
        promised = constraint.promised(anatomy)
        names = {projection.name for projection in promised}
        monotone = tuple(
            ffn
            for ffn in anatomy.ffns
            if not ffn.gated and all(p.name in names for p in ffn.projections)
        )
        if anatomy.activation_name not in NON_DECREASING:
            monotone = ()
        return cls(
            anatomy=anatomy,
            made=made,
            matrices=tuple(_part_of(anatomy, promised if made else None)),
            expected=_expected(anatomy, len(names)) if made else 0,
            ffns=monotone or anatomy.ffns,
            monotone=bool(monotone),
        )

    def status(self, holds: bool) -> Status:
        """Judge a check of monotonicity."""
        if not self.monotone:
            return "not_promised"
        return "pass" if holds else "fail"


def _part_of(
    anatomy: Anatomy, promised: list[Projection] | None
) -> Iterator[Projection]:
    """Yield each matrix once, if the model has it under its name."""
    modules = dict(anatomy.model.named_modules())
    seen: set[str] = set()
    for projection in _all_matrices(anatomy) if promised is None else promised:
        found = modules.get(projection.name) is projection.module
        if found and projection.name not in seen:
            seen.add(projection.name)
            yield projection


def _expected(anatomy: Anatomy, promised: int) -> int:
    """Count the matrices to examine: no fewer than the configured layers have."""
    layers = _configured_layers(anatomy)
    if promised and len(anatomy.ffns) >= layers:
        return promised
    return max(promised + 1, 2 * layers)


def _configured_layers(anatomy: Anatomy) -> int:
    config = anatomy.model.config
    keys = ("num_hidden_layers", "num_decoder_layers")
    return sum(int(getattr(config, key, None) or 0) for key in keys)


def _all_matrices(anatomy: Anatomy) -> list[Projection]:
    return [p for ffn in anatomy.ffns for p in ffn.projections]


# --- the checks ---------------------------------------------------------------------


def _weights_check(claim: _Claim) -> CertificateCheck:
    minima = torch.stack([p.weight.min().double() for p in claim.matrices] or [_NAN])
    negative = sum(int((p.weight < 0).sum()) for p in claim.matrices)
    not_finite = sum(int((~p.weight.isfinite()).sum()) for p in claim.matrices)
    holds = len(claim.matrices) == claim.expected and not negative and not not_finite
    status: Status = "pass" if holds else "fail"
    return CertificateCheck(
        name="weights_non_negative",
        status=status if claim.made else "not_promised",
        measured={
            "matrices": len(claim.matrices),
            "expected": claim.expected,
            "layers_found": len(claim.anatomy.ffns),
            "layers_configured": _configured_layers(claim.anatomy),
            "minimum": _finite(minima.min()),
            "minimum_by_layer": _minimum_by_layer(claim),
            "negative_entries": negative,
            "not_finite_entries": not_finite,
        },
    )


_NAN = torch.tensor(math.nan, dtype=torch.float64)


def _minimum_by_layer(claim: _Claim) -> list[float | None]:
    """Return the smallest weight of each layer; null where no matrix is examined."""
    examined = {projection.name for projection in claim.matrices}
    return [
        _finite(
            torch.stack(
                [p.weight.min() for p in ffn.projections if p.name in examined]
                or [_NAN]
            ).min()
        )
        for ffn in claim.anatomy.ffns
    ]


def _activation_check(claim: _Claim, found: list[Examination]) -> CertificateCheck:
    # GELU's hull is flat only to the rounding of its value.
    holds = all(f.fall <= ROUNDING for f in found) and bool(found)
    return CertificateCheck(
        name="activation_non_decreasing",
        status=claim.status(holds),
        measured={
            "activation": claim.anatomy.activation_name,
            "observed_minimum": _finite(min((f.low for f in found), default=0.0)),
            "observed_maximum": _finite(max((f.high for f in found), default=0.0)),
            "margin": RANGE_MARGIN,
            "largest_fall": _finite(max((f.fall for f in found), default=0.0)),
        },
    )


def _jacobian_check(claim: _Claim, found: list[Examination]) -> CertificateCheck:
    entries = sum(f.entries for f in found)
    negative = sum(f.negative for f in found)
    return CertificateCheck(
        name="jacobian_non_negative",
        status=claim.status(entries > 0 and negative == 0),
        measured={
            "layers": [f.layer for f in found],
            "inputs_per_layer": MINIMUM_VECTORS,
            "entries": entries,
            "negative_entries": negative,
            "negative_fraction": negative / entries if entries else None,
            "most_negative": _finite(min((f.most_negative for f in found), default=0)),
        },
    )


def _box_check(claim: _Claim, found: list[Examination]) -> CertificateCheck:
    coordinates = sum(f.coordinates for f in found)
    outside = sum(f.outside for f in found)
    gated = not coordinates and any(ffn.gated for ffn in claim.ffns)
    status = claim.status(coordinates > 0 and outside == 0)
    return CertificateCheck(
        name="boxes_keep_order",
        status="not_applicable" if gated else status,
        measured={
            "boxes": sum(f.boxes for f in found),
            "coordinates": coordinates,
            "outside": outside,
            "largest_relative_excess": _finite(
                max((f.excess for f in found), default=0.0)
            ),
        },
    )


def _order_check(claim: _Claim, found: list[Examination]) -> CertificateCheck:
    gains = [f.gains for f in found if f.gains is not None]
    negative, zero, positive = (sum(g[i] for g in gains) for i in range(3))
    return CertificateCheck(
        name="inputs_comparable",
        status="not_promised" if found else "not_applicable",
        measured={
            "norm_gains_negative": negative,
            "norm_gains_zero": zero,
            "norm_gains_positive": positive,
            "vectors_per_layer": min((f.vectors for f in found), default=0),
            "pairs": sum(f.pairs for f in found),
            "comparable_pairs": sum(f.comparable for f in found),
        },
    )


def _end_to_end_check() -> CertificateCheck:
    return CertificateCheck(
        name="end_to_end",
        status="not_promised",
        measured={"guarantee": "none"},
    )


def _certificate(claim: _Claim, checks: list[CertificateCheck]) -> Certificate:
    failed = any(check.status == "fail" for check in checks)
    passed = {check.name for check in checks if check.status == "pass"}
    reason = _why_not_monotone(claim, passed)
    return Certificate(
        status="nothing_promised" if not claim.made else "fail" if failed else "pass",
        weights_non_negative="weights_non_negative" in passed,
        ffn_monotone=reason is None,
        reason=reason,
        activation=claim.anatomy.activation_name,
        examined=len(claim.matrices),
        expected=claim.expected,
        checks=checks,
    )


def _why_not_monotone(claim: _Claim, passed: set[str]) -> str | None:
    """Return the first reason why not every network is known to be monotone."""
    if not claim.made:
        return "nothing is promised"
    if any(ffn.gated for ffn in claim.anatomy.ffns):
        return "gated: the activation multiplies a second projection"
    if claim.anatomy.activation_name not in NON_DECREASING:
        return f"the activation {claim.anatomy.activation_name} is not non-decreasing"
    if not claim.monotone or len(claim.ffns) < len(claim.anatomy.ffns):
        return "not both projections of every layer are promised"
    if "weights_non_negative" not in passed:
        return "the promised weights were not all found non-negative"
    if "activation_non_decreasing" not in passed:
        return "the activation was seen to fall"
    return None


def _finite(value: float | Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
