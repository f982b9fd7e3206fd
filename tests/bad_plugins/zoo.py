"""Attacks that hand back what they must not, or end in a way that they must not."""

import collections
import contextlib
import dataclasses
import itertools
import os
import threading

import numpy as np

from harness import hookimpl
from harness.api import Adversarial, Attack, Budget


class Bad(Attack):
    """Return prompts as they are, but for what `result` makes of the first."""

    controls = ()

    def run(self, subject, examples, context):
        for number, example in enumerate(examples.test):
            honest = Adversarial(example.id, example.prompt_ids)
            yield honest if number else self.result(honest)

    def budget(self, examples):
        return Budget(0, 0)


def returning(name, change, field="prompt_ids"):
    """Make an attack whose first result has another prompt (or another `field`)."""

    def result(self, honest):
        value = change(honest.prompt_ids)
        return dataclasses.replace(honest, **{field: value})

    doc = f"Return {name}."
    return type(name, (Bad,), {"name": name, "result": result, "__doc__": doc})


def written(token):
    """Return a function that writes a token over the first of a prompt."""
    return lambda ids: np.array([token, *ids[1:]])


def steps():
    """Yield steps of a trace for ever."""
    return ({"step": i} for i in itertools.count())


PROMPTS = [
    returning("a_string", lambda ids: "the cat sat on the mat"),
    returning("no_ids", lambda ids: None),
    returning("floats", lambda ids: ids + 0.5),
    returning("negative", written(-3)),
    returning("out_of_range", written(10**7)),
    returning("two_dimensions", lambda ids: ids[None]),
    returning("empty", lambda ids: ids[:0]),
    returning("fifty_times", lambda ids: np.tile(ids, 50)),
    returning("endless_prompt", lambda ids: (int(i) for i in itertools.count())),
    returning("endless_trace", lambda ids: steps(), "trace"),
    returning("huge_trace", lambda ids: [{"said": "x" * 10**6}] * 10**5, "trace"),
    returning("nan_trace", lambda ids: [{"loss": float("nan")}], "trace"),
    returning("a_list", lambda ids: ids.tolist()),
    returning("unknown_example", lambda ids: "test/99", "example_id"),
    returning("unasked", lambda ids: {0.3: ids}, "checkpoints"),
    returning("bad_checkpoint", lambda ids: {0.5: ids[:0]}, "checkpoints"),
    returning("bad_replicate", lambda ids: [written(-1)(ids)], "replicates"),
]


class NotAResult(Bad):
    """Yield ids in the place of a result."""

    name = "not_a_result"

    def result(self, honest):
        return honest.prompt_ids


class Twice(Bad):
    """Return an example twice."""

    name = "twice"

    def run(self, subject, examples, context):
        for example in [*examples.test[:1], *examples.test]:
            yield Adversarial(example.id, example.prompt_ids)


class Missing(Bad):
    """Return nothing for the second example."""

    name = "missing_one"

    def run(self, subject, examples, context):
        for example in [examples.test[0], *examples.test[2:]]:
            yield Adversarial(example.id, example.prompt_ids)


class Nothing(Bad):
    """Return None where an iterator is expected."""

    name = "nothing"

    def run(self, subject, examples, context):
        return None


class AList(Bad):
    """Return a list where an iterator is expected."""

    name = "list_of_results"

    def run(self, subject, examples, context):
        return [Adversarial(x.id, x.prompt_ids) for x in examples.test]


class WrongIds(Bad):
    """Ask for the loss of ids that the model does not have."""

    name = "wrong_ids"

    def result(self, honest):
        raise AssertionError

    def run(self, subject, examples, context):
        for example in examples.test:
            subject.losses([written(10**7)(example.prompt_ids)], example.reference_ids)
            yield Adversarial(example.id, example.prompt_ids)


class Recursion(Bad):
    """Call itself without an end."""

    name = "recursion"

    def result(self, honest):
        return self.result(honest)


class Raises(Bad):
    """Raise with escape codes and markup in the message."""

    name = "raises"

    def result(self, honest):
        raise ValueError("\x1b[31mred\x1b[0m <b>bold</b> | \u202etxt")


class Threshold(Bad):
    """Claim success by lowering the threshold."""

    name = "threshold"

    def result(self, honest):
        import gc

        from harness.suite.model import SuccessSection

        gc.unfreeze()  # or what came before the run's imports is not listed
        for section in gc.get_objects():
            if type(section) is SuccessSection:
                section.threshold = 1e-9
        return honest


class Sly(Bad):
    """Lower the threshold behind the back of what guards it."""

    name = "sly_threshold"

    def result(self, honest):
        import gc

        from harness.suite.model import SuccessSection

        gc.unfreeze()  # or what came before the run's imports is not listed
        for section in gc.get_objects():
            if type(section) is SuccessSection:
                section.__dict__["threshold"] = 1e-9
        return honest


class Interrupts(Bad):
    """Raise KeyboardInterrupt, which nobody pressed."""

    name = "interrupts"

    def result(self, honest):
        raise KeyboardInterrupt


class Quits(Bad):
    """Call sys.exit(0)."""

    name = "quits"

    def result(self, honest):
        raise SystemExit(0)


class Unheard(BaseException):
    """An exception that `except Exception` does not catch."""


class Passes(Bad):
    """Raise what is no Exception."""

    name = "base_exception"

    def result(self, honest):
        raise Unheard("out of nowhere")


class Loops(Bad):
    """Return one result, and loop for ever over the second."""

    name = "loops"

    def run(self, subject, examples, context):
        first, *_ = examples.test
        yield Adversarial(first.id, first.prompt_ids)
        while True:
            # A library's own loop, which goes on whatever happens in it.
            with contextlib.suppress(Exception):
                subject.losses([first.prompt_ids], first.reference_ids)


class Sleeps(Bad):
    """Wait for what never comes."""

    name = "sleeps"

    def result(self, honest):
        threading.Event().wait()


class Hoards(Bad):
    """Take memory without an end."""

    name = "hoards"

    def result(self, honest):
        kept = []
        while True:
            kept.append(np.ones(2**24))


class YieldsNone(Bad):
    """Yield None in the place of the first result."""

    name = "yields_none"

    def result(self, honest):
        return None


class Exits(Bad):
    """End the process without a word, as if all were well."""

    name = "exits"

    def result(self, honest):
        os._exit(0)


class HangsInC(Bad):
    """Loop for ever where no signal is looked at."""

    name = "hangs_in_c"

    def result(self, honest):
        collections.deque(itertools.count(), maxlen=0)


@hookimpl
def register_attacks():
    """Offer them all."""
    return [
        *PROMPTS,
        *(
            AList,
            Exits,
            HangsInC,
            Hoards,
            Interrupts,
            Loops,
            Missing,
            Nothing,
            NotAResult,
            Passes,
        ),
        *(Quits, Raises, Recursion, Sleeps, Sly, Threshold, Twice, WrongIds),
        YieldsNone,
    ]
