"""``harness compare``: what two runs have in common, and by how much it differs."""

from __future__ import annotations

import json
from pathlib import Path

import click
from tabulate import tabulate

from harness import report, results
from harness.cli import options
from harness.cli.printing import answer

NOTHING = 2


@click.command()
@click.argument("first", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("second", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.plugins
@options.trust
@options.json_output
def command(
    first: Path,
    second: Path,
    plugins: tuple[Path, ...],
    trust: bool,
    as_json: bool,
) -> int:
    """Compare what two runs have in common, by their labels.

    Differences are second minus first, in nats/token, paired by document, with 95 %
    intervals. What was asked otherwise (other examples, attack options, token rules)
    is refused, with the fields that differ. Exit code 2 where nothing can be compared.
    """
    runs = (results.load_run(x, plugins=plugins, trust=trust) for x in (first, second))
    found = results.compare_runs(*runs)
    compared = [one for one in found if not one.refused]
    if as_json:
        document = [
            {
                **one.key._asdict(),
                "refused": one.refused,
                "differs": one.differs,
                "differences": {
                    name: estimate.model_dump(mode="json")
                    for name, estimate in one.differences.items()
                },
            }
            for one in found
        ]
        answer(json.dumps(document, indent=1))
        return 0 if compared else NOTHING
    rows = [
        [*_labels(one.key), name, report.estimate_text(x)]
        for one in compared
        for name, x in one.differences.items()
    ]
    if rows:
        heads = ["model", "arm", "attack", "what", "difference"]
        answer(tabulate(rows, headers=heads, disable_numparse=True))
    for change in dict.fromkeys(x for one in compared for x in one.differs):
        answer(f"the runs differ in {change}")
    for one in found:
        if one.refused:
            answer(f"not comparable: {_name(one.key)}: {'; '.join(one.refused)}")
    return 0 if compared else NOTHING


def _labels(key: results.Key) -> list[str]:
    return [key.model, key.arm, key.attack or "--"]


def _name(key: results.Key) -> str:
    return " ".join([key.model, f"({key.arm})", *([key.attack] if key.attack else [])])
