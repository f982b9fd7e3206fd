"""What an attack returned, held against what it has to be before a model sees it.

An id that the embedding has no row for is an error that names nobody on a CPU, and on a
GPU it ends the process. So everything a plugin hands over is looked at here, and what
is wrong is said with the attack, the example, what was expected and what came.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.api import Adversarial
from harness.base import CellError, Ids
from harness.data import Example

STEPS = 100_000
"""How many steps a trace may have."""
TRACE_CHARACTERS = 16_000_000
"""How long a trace may be, written down."""
PROMPTS = 1_000
"""How many further prompts there may be of one example."""
TIMES_AS_LONG = 10
"""How many times as long as the clean prompt, and what the budget puts before it, a
prompt may be."""
SHORT = 64
"""How many tokens a prompt may have however short the clean one is."""


@dataclass
class Returned:
    """Takes the results of one attack, each checked and as what it should be."""

    attack: str
    """What sentences call it, as "the attack 'hotflip'"."""
    examples: Mapping[str, Example]
    """Those that it was asked about, by id."""
    rows: int
    """How many ids the model has embeddings for."""
    positions: int | None = None
    """How many tokens the model can read; None where it states no limit."""
    prepended: int | None = 0
    """How many tokens its budget puts before a prompt; None where prompts may have any
    length, because others wrote them."""
    shares: Sequence[float] = ()
    """The checkpoints that it was asked for."""
    _seen: set[str] = field(default_factory=set)

    def results(self, run: Callable[[], Any]) -> Iterator[Any]:
        """Yield what `Attack.run` yields; it is called when the first is asked for."""
        returned = run()
        if not isinstance(returned, Iterator):
            raise CellError(
                f"{self.attack} returned {_spelt(returned)} from `run`; expected an "
                "iterator that yields a harness.api.Adversarial for each example"
            )
        yield from returned

    def checked(self, found: Any) -> Adversarial:
        """Return a result with ids as int64 arrays [n] and the trace as a list.

        Raises CellError with a sentence on the first thing that is wrong.
        """
        if not isinstance(found, Adversarial):
            raise CellError(
                f"{self.attack} yielded {_spelt(found)}; expected a "
                "harness.api.Adversarial"
            )
        example = self._example(found.example_id)
        return replace(
            found,
            prompt_ids=self._prompt(example, found.prompt_ids, "prompt_ids"),
            trace=self._trace(example, found.trace),
            checkpoints=self._checkpoints(example, found.checkpoints),
            replicates=[
                self._prompt(example, prompt, f"replicates[{i}]")
                for i, prompt in enumerate(self._prompts(example, found.replicates))
            ],
        )

    def _example(self, name: Any) -> Example:
        if not isinstance(name, str) or name not in self.examples:
            known = ", ".join(map(repr, itertools.islice(self.examples, 3)))
            raise CellError(
                f"{self.attack} returned the example {_spelt(name)} unasked; expected "
                f"one of the {len(self.examples)} that it was given: {known}, ..."
            )
        if name in self._seen:
            raise CellError(
                f"{self.attack} returned the example {name!r} twice; expected one "
                "result for each"
            )
        self._seen.add(name)
        return self.examples[name]

    def _prompt(self, example: Example, value: Any, what: str) -> Ids:
        """Return a prompt's ids, where they are such that the model can read them."""
        wanted = "token ids [n], whole numbers"
        ids = _array(value)
        if ids is None:
            raise self._wrong(example, what, wanted, _spelt(value))
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            came = f"an array {list(ids.shape)} of {ids.dtype}"
            raise self._wrong(example, what, wanted, came)
        if not len(ids):
            raise self._wrong(example, what, "one token at least", "none")
        most = self._most(example)
        if most is not None and len(ids) > most:
            clean = f"for a clean prompt of {len(example.prompt_ids)}"
            wanted = f"at most {most} tokens {clean}"
            raise self._wrong(example, what, wanted, f"{len(ids)}")
        for token in (int(ids.min()), int(ids.max())):
            if not 0 <= token < self.rows:
                wanted = f"ids from 0 to {self.rows - 1}, which the model has"
                raise self._wrong(example, what, wanted, str(token))
        return ids.astype(np.int64)

    def _most(self, example: Example) -> int | None:
        limits = []
        if self.positions is not None:
            limits.append(max(1, self.positions - len(example.reference_ids)))
        if self.prepended is not None:
            stated = len(example.prompt_ids) + self.prepended
            limits.append(max(SHORT, TIMES_AS_LONG * stated))
        return min(limits, default=None)

    def _trace(self, example: Example, trace: Any) -> list[dict[str, Any]]:
        """Return the steps of a trace, read no further than it may be long."""
        if isinstance(trace, str | Mapping) or not isinstance(trace, Iterable):
            raise self._wrong(example, "trace", "a list of steps", _spelt(trace))
        steps, characters = [], 0
        for step in itertools.islice(trace, STEPS + 1):
            if not isinstance(step, Mapping):
                wanted = "steps that are mappings"
                raise self._wrong(example, "trace", wanted, _spelt(step))
            steps.append(dict(step))
            try:
                characters += len(json.dumps(steps[-1], allow_nan=False))
            except (TypeError, ValueError, RecursionError) as error:
                wanted = "steps that JSON can hold"
                raise self._wrong(example, "trace", wanted, str(error)) from error
            if len(steps) > STEPS or characters > TRACE_CHARACTERS:
                wanted = f"at most {STEPS:,} steps and {TRACE_CHARACTERS:,} characters"
                raise self._wrong(example, "trace", wanted, "more")
        return steps

    def _checkpoints(self, example: Example, held: Any) -> dict[float, Ids]:
        if not isinstance(held, Mapping):
            wanted = "prompts by the share of the budget"
            raise self._wrong(example, "checkpoints", wanted, _spelt(held))
        unasked = held.keys() - set(self.shares)
        if unasked:
            wanted = f"checkpoints at {list(self.shares)}"
            came = f"{sorted(map(str, unasked))}, unasked"
            raise self._wrong(example, "checkpoints", wanted, came)
        return {
            share: self._prompt(example, prompt, f"checkpoints[{share}]")
            for share, prompt in held.items()
        }

    def _prompts(self, example: Example, prompts: Any) -> list[Any]:
        wanted = f"at most {PROMPTS:,} prompts"
        if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
            raise self._wrong(example, "replicates", wanted, _spelt(prompts))
        found = list(itertools.islice(prompts, PROMPTS + 1))
        if len(found) > PROMPTS:
            raise self._wrong(example, "replicates", wanted, "more")
        return found

    def _wrong(self, example: Example, what: str, wanted: str, came: str) -> CellError:
        return CellError(
            f"{self.attack} returned a wrong `{what}` for the example {example.id!r}: "
            f"expected {wanted}; came {came}"
        )


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    """Return what numpy makes of a value; None where that is no array of numbers."""
    try:
        array = np.asarray(value)
    except Exception:  # noqa: BLE001 - a ragged list, a tensor on a GPU, their own type
        return None
    return None if array.dtype.kind in "OUSVb" or not array.ndim else array


def _spelt(value: Any) -> str:
    """Name a value that should not be there, shortly."""
    if value is None or isinstance(value, str | bytes | bool | int | float):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    name = type(value).__qualname__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
