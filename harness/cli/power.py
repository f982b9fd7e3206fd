"""``harness power``: what a suite would be able to find, before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from tabulate import tabulate

from harness import verdicts
from harness.base import UsageError
from harness.cli import options
from harness.cli.options import SuiteChoice
from harness.cli.printing import answer, warn_of
from harness.running import survey
from harness.suite import Suite


@click.command()
@options.suite_options
@click.option(
    "--from",
    "pilot",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="RUN",
    help="The folder of a run of the same kind, to read the variance from.",
)
@options.json_output
@options.trust
def command(choice: SuiteChoice, pilot: Path, as_json: bool, trust: bool) -> None:
    """Say which differences a suite can find, and what more would bring.

    Between an arm and its reference arm, at the level of verdicts after Holm, with
    80 % power: with the suite's training seeds and documents, and with more of each.
    The variance of seeds, of documents and of both together is that of a pilot: of the
    same contrast where RUN has it. No code is run that the suite or RUN names, but for
    plugins with --trust.
    """
    experiment = choice.experiment(trust=trust)
    found = survey(pilot, choice.plugins, trust=trust)
    warn_of(experiment)
    warn_of(found.plan.experiment)
    suite = experiment.suite
    results = verdicts.Results(found, suite.success.threshold)
    foreseen = verdicts.foresee(verdicts.findings_of(results), _planned(suite))
    if as_json:
        answer(json.dumps([asdict(each) for each in foreseen], indent=1))
    else:
        answer("\n".join(_lines(foreseen, pilot)))


def _planned(suite: Suite) -> list[verdicts.Planned]:
    """Return the contrasts of a suite's treatments, that Holm counts."""
    if suite.examples is None:
        raise UsageError(f"{suite.name} attacks nothing: it has no examples")
    count = suite.examples.test.count
    return [
        verdicts.Planned(
            model=model,
            arm=arm,
            reference=reference,
            seeds=len(set(suite.seeds_of(arm)) & set(suite.seeds_of(reference))),
            examples=count,
        )
        for model in suite.models
        for arm, section in suite.arms.items()
        if section.is_treatment and (reference := suite.reference_of(arm))
    ]


CELLS = (
    "A cell is the smallest true difference that 80 % of such runs find; behind `to`, "
    "the\nsame if seeds vary as much as one pilot in ten would hide."
)


def _lines(found: Sequence[verdicts.Foreseen], pilot: Path) -> Iterator[str]:
    level = 1 / max(1, len(found))
    yield (
        f"{len(found)} contrast{'s' * (len(found) != 1)}, so {level:.2g} % one-sided "
        "by Holm's first step; power 80 %. In nats/token:"
    )
    for each in found:
        yield ""
        yield from _contrast(each, pilot)
    if any(each.seed_sd is not None for each in found):
        yield f"\n{CELLS}"


def _contrast(each: verdicts.Foreseen, pilot: Path) -> Iterator[str]:
    planned = each.planned
    both = (
        "seeds unknown"
        if each.seed_sd is None
        else f"seeds {each.seed_sd:.3f}, both together {each.residual_sd:.3f}"
    )
    yield f"{planned.model}: {planned.arm} - {planned.reference}"
    yield (
        f"  in {pilot.name} ({each.pilot}; seeds {each.pilot_seeds}, documents "
        f"{each.pilot_documents}) these vary by: documents {each.document_sd:.3f}, "
        f"{both}; dL of {planned.reference} {each.reference_delta:.2f}"
    )
    if each.seed_sd is None:
        yield (
            "  how seeds vary takes a pilot of two seeds or more: what the suite would "
            "find is unknown"
        )
        return
    documents = list(dict.fromkeys(x.documents for x in each.found))
    rows: dict[int, list[str]] = {}
    for x in each.found:
        rows.setdefault(x.seeds, []).append(_difference(x))
    body = [[_seeds(own, planned), *cells] for own, cells in rows.items()]
    headers = ["seeds", *(f"{n} documents" for n in documents)]
    table = tabulate(body, headers, disable_numparse=True)
    yield from (f"  {line}" for line in table.splitlines())


def _seeds(own: int, planned: verdicts.Planned) -> str:
    return f"{own} (the suite)" if own == planned.seeds else str(own)


def _difference(found: verdicts.Found) -> str:
    if found.difference is None or found.at_worst is None:
        return "unknown"
    return f"{found.difference:.3f} to {found.at_worst:.3f}"
