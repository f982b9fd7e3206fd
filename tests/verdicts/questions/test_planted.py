"""Whether an attack found what was planted, from records alone."""

from types import SimpleNamespace

from harness.data.document import content_key
from harness.records.record import Derivation
from harness.verdicts.questions.planted import found_on
from tests.run_fixtures import sample_row

GAINS = [
    {"example": content_key([n, 1, 2], [3]), "prepended": 3.0, "written": 2.0}
    for n in range(6)
]
MEASURED = {"trigger_ids": [90, 91], "gains": GAINS}
VARIANT = SimpleNamespace(
    derivation=Derivation(achieved=True, results={}, measured=MEASURED)
)
"""What is asked of a variant's record."""


def row(number, adversarial, delta):
    found = sample_row(number, 4.0, delta, error=adversarial is None)
    clean = {"clean_prompt_ids": [number, 1, 2], "reference_ids": [3]}
    return found.model_copy(update=clean | {"adversarial_prompt_ids": adversarial})


def test_found_is_the_token_or_nine_tenths_of_what_it_does():
    rows = [
        row(0, [0, 91, 2], 0.1),  # a trigger token, whatever came of it
        row(1, [1, 7, 2], 1.81),  # nine tenths of 2.0
        row(2, [2, 7, 2], 1.79),
        row(3, [7, 7, 3, 1, 2], 2.71),  # longer: nine tenths of 3.0
        row(4, [7, 7, 4, 1, 2], 2.69),
        row(5, None, 0.0),
        row(6, [6, 7, 2], 9.0),  # an example that the planting did not measure
    ]
    assert found_on(VARIANT, rows) == [True, True, False, True, False, False, False]
