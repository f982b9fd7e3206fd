"""An attack that can be held up: where a file says so, it waits at its second example.

What it returns is the same, held up or not.
"""

import os
import time
from pathlib import Path

from harness import hookimpl
from harness.api import Adversarial, Attack, Budget, Options


class Gated(Attack):
    """Replaces the first token by a drawn one."""

    name = "gated"
    controls = ()

    class Options(Options):
        pass

    def run(self, subject, examples, context):
        for example in examples.test:
            note(f"{context.seed_key[:8]} {example.id}")
            if example.id == "test/1" and gate("hold", context.seed_key):
                gate("held", context.seed_key, make=True)
                while gate("hold", context.seed_key):
                    time.sleep(0.1)
            prompt = example.prompt_ids.copy()
            prompt[0] = context.rng(example.id).choice(subject.vocabulary.allowed)
            yield Adversarial(example.id, prompt)

    def budget(self, examples):
        return Budget(forward=0, backward=0)


def gate(name, key, make=False):
    """Say whether a file is there for a cell, or make it; no where none is held up."""
    place = os.environ.get("GATES")
    if place is None:
        return False
    path = Path(place) / f"{name}.{key[:8]}"  # as the id of the cell ends
    if make:
        path.touch()
    return path.exists()


def note(text):
    """Write down which example is attacked when."""
    if place := os.environ.get("GATES"):
        with (Path(place) / "attacked").open("a") as file:
            file.write(f"{text}\n")


@hookimpl
def register_attacks():
    return [Gated]
