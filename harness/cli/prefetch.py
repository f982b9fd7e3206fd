"""``harness prefetch``: download what a suite needs."""

from __future__ import annotations

import click

from harness import suite
from harness.base import default_store_root
from harness.cli.options import SuiteChoice, suite_options
from harness.cli.printing import answer, say


@click.command()
@suite_options
def command(choice: SuiteChoice) -> None:
    """Download all that a suite needs, to run without network later.

    Models and datasets of the hub go to its cache, as `HF_HOME` says; of a slice that
    states its end in rows, only those rows go to the store. Where the run has no
    network, set HF_HUB_OFFLINE=1: it will not even try.
    """
    experiment = choice.experiment()
    store_root = default_store_root(choice.run_dir(experiment))
    suite.prefetch(experiment, store_root, say)
    answer(f"all that {choice.suite} needs is on this machine")
