"""``harness attack``: one model of the user's own under attack, with controls."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click
from rich.console import Console

from harness import report, results
from harness.cli import options
from harness.cli.printing import answer, say
from harness.cli.show import print_examples

SHOWN = 5
"""Examples that are printed."""
WIDTH = 88
"""Characters of a line of what attacks are worth."""
FAILED = 1


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False))
@click.argument("texts", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--examples",
    type=click.IntRange(min=4),
    default=24,
    show_default=True,
    help="How many texts to attack, at most.",
)
@click.option(
    "--flips",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many tokens of a prompt may change.",
)
@options.text_fields
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    help="Of pairs, the tokens of a prompt that are read, at most.",
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True)
@click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@options.plugins
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The run folder; by default runs/attack-MODEL.",
)
def command(
    model: str,
    texts: Path,
    examples: int,
    flips: int,
    fields: dict[str, str],
    prompt_tokens: int,
    seed: int,
    device: str | None,
    plugins: tuple[Path, ...],
    out: Path | None,
) -> int:
    """Attack one model on texts, and say what the attacks are worth.

    MODEL is a folder as `save_pretrained` writes it; its family is read from its
    config.json. TEXTS is a file: plain text (documents stand apart by blank lines),
    jsonl, jsonl.zst, csv or parquet. The first tokens of a text are the prompt, which
    is attacked; the next are the reference, whose loss rises.

    What is done is kept: the same command goes on where it was stopped.
    """
    run = results.attack(
        model,
        None,
        texts,
        out=out,
        examples=examples,
        flips=flips,
        seed=seed,
        fields=fields,
        prompt_tokens=prompt_tokens,
        say=say,
        plugins=plugins,
        device=device,
    )
    console = Console(highlight=False)
    cells = [cell for cell in results.find_cells(run, None) if run.is_main(cell)]
    found = results.find_examples(run, cells)
    print_examples(console, run, results.worst(found, SHOWN))
    assert run.report.verdicts is not None
    for line in report.attack_lines(run.survey, run.report.verdicts):
        answer(textwrap.fill(line, WIDTH, subsequent_indent="    "))
    suite = run.path / results.SUITE
    answer(f"\neverything is in {run.path}; harness show {run.path} shows the examples")
    answer(f"the suite that repeats it:  harness run {suite} --out {run.path}")
    counts = run.survey.counts
    return FAILED if counts["failed"] else 0
