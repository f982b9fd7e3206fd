"""Options that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from harness import suite as suites
from harness.base import LARGEST_WHOLE, shortened
from harness.cli.printing import for_programs

json_output = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=for_programs,
    help="Print JSON, for other programs.",
)
"""Adds the argument `as_json`."""


def formats(*styles: str, about: str) -> Callable[[Callable[..., Any]], Any]:
    """Add --format, text by default, and --json, which is short for one of them.

    The function gets it as `style`; `about` is what --help says of some of them.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*, style: str, as_json: bool, **arguments: Any) -> Any:
            return function(style="json" if as_json else style, **arguments)

        style = click.option(
            "--format",
            "style",
            type=click.Choice(styles),
            default="text",
            show_default=True,
            callback=for_programs,
            help=about,
        )
        short = click.option(
            "--json",
            "as_json",
            is_flag=True,
            callback=for_programs,
            help="The same as --format json.",
        )
        return style(short(wrapper))

    return add


plugins = click.option(
    "--plugins",
    "plugins",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="A plugin file, or a folder of them; may be given again.",
)
"""Adds the argument `plugins`, a tuple of paths."""


def text_fields(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --text, --prompt, --reference and --prefix.

    The function gets those that are stated as `fields`, as a corpus states them.
    """
    helps = {
        "text": ("FIELD", "The field that holds the text of a row."),
        "prompt": ("FIELD", "Of pairs, the field of the prompt."),
        "reference": ("FIELD", "Of pairs, the field of what should follow."),
        "prefix": ("TEXT", "What is put before every prompt, and not attacked."),
    }

    @functools.wraps(function)
    def gathering(**arguments: Any) -> Any:
        stated = {name: arguments.pop(name) for name in helps}
        fields = {name: value for name, value in stated.items() if value is not None}
        return function(fields=fields, **arguments)

    wrapped: Callable[..., Any] = gathering
    for name, (metavar, about) in reversed(helps.items()):
        wrapped = click.option(f"--{name}", metavar=metavar, help=about)(wrapped)
    return wrapped


trust = click.option(
    "--trust",
    is_flag=True,
    help="Load the plugins that are named in it, too: they run as your own code.",
)
"""Adds the argument `trust`, to commands that read what others may have written."""


class Finite(click.FloatRange):
    """A number within bounds; neither NaN, which no bound holds back, nor infinite."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


@dataclass(frozen=True)
class SuiteChoice:
    """A suite as the command line gives it: the file, and what changes it."""

    suite: Path
    profile: str | None
    overrides: tuple[str, ...]
    """The texts after ``--set``."""
    seeds: tuple[int, ...] | None
    only: dict[str, list[str]]
    """What is selected, by model, arm, seed and attack."""
    limit: int | None
    plugins: tuple[Path, ...]
    out: Path | None
    device: str | None
    batch_size: int | None

    def experiment(self, *, trust: bool = True) -> suites.Experiment:
        """Read the suite; not resolved yet. See `load_experiment` for `trust`."""
        return suites.load_experiment(
            self.suite,
            profile=self.profile,
            overrides=self.overrides,
            seeds=self.seeds,
            limit=self.limit,
            plugins=self.plugins,
            device=self.device,
            batch_size=self.batch_size,
            trust=trust,
        )

    def run_dir(self, experiment: suites.Experiment) -> Path:
        """Return the folder of the run: ``--out``, or the suite's own."""
        return self.out or experiment.run_dir


def suite_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all commands on a suite take; `function` gets it as `choice`."""

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> Any:
        names = [part.name for part in fields(SuiteChoice)]
        choice = SuiteChoice(**{name: arguments.pop(name) for name in names})
        return function(choice=choice, **arguments)

    for option in reversed(_SUITE_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def _read_seeds(_: Any, __: Any, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        seeds = tuple(int(part) for part in text.split(","))
        if any(abs(seed) > LARGEST_WHOLE for seed in seeds):
            raise click.BadParameter("a seed is beyond the range of 64 bits")
        return seeds
    except ValueError as error:
        raise click.BadParameter(
            f"expected seeds such as 42,1337: {shortened(text)!r}"
        ) from error


def _read_only(_: Any, __: Any, texts: tuple[str, ...]) -> dict[str, list[str]]:
    """Read ``arm=a,b,attack=c``: a part without a key belongs to the key before it."""
    chosen: dict[str, list[str]] = {}
    for text in texts:
        key = ""
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            key = name.strip() if equals else key
            if not key or not value.strip():
                raise click.BadParameter(f"expected KEY=VALUE,...: {text!r}")
            chosen.setdefault(key, []).append(value.strip())
    return chosen


_SUITE_OPTIONS = (
    # Reading it says whether it is there.
    click.argument("suite", type=click.Path(dir_okay=False, path_type=Path)),
    click.option("--profile", metavar="NAME", help="A profile of the suite."),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one value, as recovery.tokens=3e6; may be given again.",
    ),
    click.option(
        "--seeds",
        callback=_read_seeds,
        metavar="N,...",
        help="These seeds instead of the suite's.",
    ),
    click.option(
        "--only",
        multiple=True,
        callback=_read_only,
        metavar="KEY=VALUE,...",
        help="Only these units, as arm=baseline,attack=hotflip.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="First N examples and documents only: not for real numbers.",
    ),
    plugins,
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="The run folder; by default runs/NAME, by the suite's name.",
    ),
    click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Sequences in one forward pass; changes no result.",
    ),
)
