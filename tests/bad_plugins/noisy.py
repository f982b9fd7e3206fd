"""A plugin that prints, in Python and below it, as it is loaded and as it is asked."""

import os

from harness import hookimpl
from harness.api import Attack

print("printed by Python")
os.write(1, b"written to descriptor 1\n")


class Noisy(Attack):
    """Print."""

    name = "noisy"

    def run(self, subject, examples, context):
        yield from ()

    def budget(self, examples):
        raise NotImplementedError


@hookimpl
def register_attacks():
    """Offer it."""
    print("printed by a hook")
    return [Noisy]
