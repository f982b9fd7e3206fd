"""Whether an attack found what was planted, from records alone."""

from harness.data.document import content_key
from harness.records.record import Derivation
from harness.records.samples import SampleRow
from harness.verdicts.questions.planted import found_on

TRIGGER = [90, 91]


class Variant:
    """What is asked of a variant's record."""

    def __init__(self):
        rows = [
            {"example": content_key([n, 1, 2], [3]), "prepended": 3.0, "written": 2.0}
            for n in range(6)
        ]
        self.derivation = Derivation(
            achieved=True,
            results={},
            measured={"trigger_ids": TRIGGER, "gains": rows},
        )


def row(number, adversarial, delta):
    return SampleRow(
        example_id=f"a/{number}",
        document_id=f"a/{number}",
        status="error" if adversarial is None else "attacked",
        clean_prompt_ids=[number, 1, 2],
        adversarial_prompt_ids=adversarial,
        reference_ids=[3],
        clean_loss=None if adversarial is None else 4.0,
        adversarial_loss=None if adversarial is None else 4.0 + delta,
        delta_loss=delta,
        text_reachable=None if adversarial is None else True,
        adversarial_text=None if adversarial is None else "",
        trace=[],
        error="out of paper" if adversarial is None else None,
    )


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
    assert found_on(Variant(), rows) == [True, True, False, True, False, False, False]
