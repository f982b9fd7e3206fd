"""The rule, line by line: from a run in which all is well, one change at a time."""

from dataclasses import replace

import numpy as np
import pytest

from harness.verdicts.case import Cases
from harness.verdicts.rule import decide
from tests.verdicts.simulated import flawless


def decided(findings, label="treated"):
    (case,) = [x for x in Cases(findings).judged if x.arm.label == label]
    return decide(case)


def word(findings, label="treated"):
    return decided(findings, label).word


def changed(findings, label, **changes):
    """Return findings with one arm changed."""
    arms = [replace(x, **changes) if x.label == label else x for x in findings.arms]
    return replace(findings, arms=arms)


def edited(findings, label, attack, **changes):
    """Return findings with one cell changed."""
    cells = dict(findings.arm("m", label).cells)
    cells[attack] = replace(cells[attack], **changes)
    return changed(findings, label, cells=cells)


def scaled(findings, label, attack, factor):
    """Return findings with the dL of one cell multiplied."""
    delta = findings.arm("m", label).cells[attack].delta
    return edited(findings, label, attack, delta=delta * factor)


def without(findings, label, attack):
    """Return findings in which an arm lacks an attack's cells."""
    cells = dict(findings.arm("m", label).cells)
    del cells[attack]
    return changed(findings, label, cells=cells)


def asked(findings, label, name, **changes):
    """Return findings with the answers of a subject changed."""
    examined = dict(findings.arm("m", label).examined)
    examined[name] = replace(examined[name], **changes)
    return changed(findings, label, examined=examined)


def measured(findings, label, name, value):
    values = findings.arm("m", label).examined[name].values
    return asked(findings, label, name, values=np.full_like(values, value))


HARDER = flawless(0.5)
EASIER = flawless(1.5)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.5, "harder to attack"),
        (0.8, "undecided"),  # less than the detection limit
        (1.0, "equivalent"),
        (1.5, "easier to attack"),
    ],
)
def test_a_run_in_which_all_is_well_gets_the_word_of_its_difference(scale, expected):
    findings = flawless(scale)
    assert word(findings) == expected
    assert word(findings, "baseline") == "reference"
