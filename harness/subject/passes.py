"""The passes that a subject makes: batched, counted, smaller where memory ends.

Passes are launched, and what they found is fetched: a device works while its next work
is prepared.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch

from harness.base import CellError, Ids, replaced
from harness.subject.causal import CausalNetwork
from harness.subject.decoding import generate_greedily, predictions
from harness.subject.fast.prefixes import KeyValues, serves
from harness.subject.fast_network import FastNetwork
from harness.subject.fingerprint import fingerprint
from harness.subject.ledger import Meters
from harness.subject.network import Network
from harness.subject.rounding import Losses
from harness.subject.scheduler import Lanes, Pair
from harness.subject.seq2seq import Seq2SeqNetwork
from harness.subject.sharing import Shape, shapes_of
from harness.subject.transfer import fetched, filled, reached, sent

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

T = TypeVar("T")
Fetch = Callable[[], T]
"""Waits for what was launched, and returns it."""

LANES = {"cpu": Lanes(), "cuda": Lanes(searches=128, fewest=16, ahead=4)}
"""Searches side by side. A GPU works for some while the host advances others."""
BATCH = {"cpu": 64, "cuda": 4096}
"""Sequences in one pass, at most."""
WHOLE_TEXTS = 64
"""Texts that are read or written together, at most: they may be long."""
TOKENS_AT_ONCE = {"cpu": 1024}
"""How many tokens a pass reads where that is enough to keep such a device busy."""
SCORING_WORK = 8e13
"""FLOPs of a pass that scores on a GPU: enough to outlast the launch of its kernels."""
FEWEST_TOKENS, MOST_TOKENS = 4096, 131_072
"""Tokens of such a pass: fewer leave processors idle, whatever the model."""
SLACK = {"cuda": 0.5}
"""By which share a pass may be larger where nothing then remains for another."""
BYTES_A_TOKEN = 64
"""What a pass holds of a token, at most, for each dimension of the hidden states."""
GRADIENT_TOKENS = {"cpu": 1, "cuda": 2048}
"""How many tokens a pass reads that has a gradient, or decides near ties: enough to
keep a GPU busy, and not so many that rows often fill passes up. On a CPU, one pair."""

LEAST_SAVED = {"cuda": 4096}
"""What candidates share is read apart where that saves so many tokens: it launches
twice the kernels, and those of short passes are bound by launch latency."""


class Passes:
    """Scores pairs with a model in float32, and with a copy in another precision.

    Pairs are (prompt, reference), no longer than the model can read.
    """

    def __init__(
        self,
        exact: Network,
        search: Network,
        deciding: Network,
        batch_size: int | None = None,
    ) -> None:
        """Take the networks; all may be one.

        `search` may be in another precision; `deciding` has the weights of `exact`, and
        may round otherwise.
        """
        self.exact = exact
        self.search = search
        self.deciding = deciding
        self.device = exact.model.device
        self.meters = Meters(self.device)
        kind = self.device.type
        self.batch_size = batch_size or BATCH.get(kind, 64)
        """Sequences in one forward pass; halved when the device runs out of memory."""
        self.gradient_tokens = GRADIENT_TOKENS.get(kind, 1)
        """Tokens in one pass that has a gradient or decides near ties, at most, but for
        a pair that is longer; less once the device ran out of memory."""
        self.tokens_at_once = TOKENS_AT_ONCE.get(kind) or _tokens_at_once(search.model)
        self.lanes = LANES.get(kind, Lanes())
        """How many searches share passes."""
        self._stream = _stream(self.device)
        """Where what is no pass is computed on a GPU, so that it waits for none."""
        self._slack = SLACK.get(kind, 0.0)
        self._least_saved = LEAST_SAVED.get(kind)

    @classmethod
    def of(
        cls, model: PreTrainedModel, precision: str, batch_size: int | None = None
    ) -> Passes:
        """Take a frozen float32 model; below that precision, a copy of it searches.

        Raises CellError where the model's head does more than we know of.
        """
        exact = search = deciding = _network(model)
        exact.check_head()
        if precision != "float32":
            search = _network(_in_precision(model, getattr(torch, precision)))
            if isinstance(search, FastNetwork):
                search.hurry()
                deciding = FastNetwork(model)
                deciding.compile()
        return cls(exact, search, deciding, batch_size)

    @property
    def max_positions(self) -> int | None:
        """How many tokens a pass may read; None where the model states no limit."""
        limit = getattr(self.exact.model.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def fingerprint(self) -> str:
        """Return a hash of the weights, hooks and modes of the models."""
        networks = (self.exact, self.search)
        return fingerprint({id(n): n.model for n in networks}.values())

    # --- pairs ----------------------------------------------------------------------

    def pairs(
        self, prompts: Sequence[Ids] | Ids, references: Sequence[Ids] | Ids
    ) -> list[Pair]:
        """Put each prompt with its reference, or all with the one reference [m].

        Raises ValueError where one is empty, and CellError where a pair is longer than
        the model can read, or has an id that the model has no embedding for.
        """
        if isinstance(references, np.ndarray) and references.ndim == 1:
            references = [references] * len(prompts)
        pairs: list[Pair] = list(zip(prompts, references, strict=True))
        self.check(pairs)
        return pairs

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raise what `pairs` does."""
        for n, m in {(len(prompt), len(reference)) for prompt, reference in pairs}:
            if not n or not m:
                raise ValueError("a prompt and a reference need at least one token")
            self._check_length(self.exact.tokens_read(n, m))
        self._check_ids(pairs)

    def _check_ids(self, pairs: Sequence[Pair]) -> None:
        """Refuse what would end in an index out of range; on a GPU that is the end."""
        if not pairs:
            return
        references = {id(reference): reference for _, reference in pairs}
        ids = np.concatenate([*(prompt for prompt, _ in pairs), *references.values()])
        if ids.dtype.kind not in "iu":
            raise CellError(f"token ids are whole numbers, and these are {ids.dtype}")
        for token in (int(ids.min()), int(ids.max())):
            if not 0 <= token < self.exact.rows:
                raise CellError(
                    f"the token id {token} is none of this model's, which has ids from "
                    f"0 to {self.exact.rows - 1}"
                )

    def _check_length(self, n_tokens: int) -> None:
        if self.max_positions is not None and n_tokens > self.max_positions:
            raise CellError(
                f"a sequence of {n_tokens} tokens is too long for a model of "
                f"{self.max_positions} positions"
            )

    # --- losses ---------------------------------------------------------------------

    def deciding_losses(self, pairs: Sequence[Pair]) -> Fetch[Losses]:
        """Score pairs in float32, of which each depends on nothing but itself.

        On a GPU that searches below float32, by faster kernels, with products in its
        faster 19 bits.
        """
        found = self._alike(pairs, self.deciding.repeated_losses)
        return fetched(torch.stack(found))

    def faster_products(self) -> AbstractContextManager[None]:
        """Let products of float32 inside go in a GPU's faster 19 bits.

        Not where the search itself is in float32.
        """
        return tensor_float32(self.search is not self.exact)

    def losses(self, network: Network, pairs: Sequence[Pair]) -> Fetch[Losses]:
        """Have pairs scored in batches; return what waits for their losses.

        What candidates share is read once, where the network can do that.
        """
        sharing = isinstance(network, FastNetwork)
        shapes = shapes_of(pairs, sharing=sharing, least=self._least_saved)
        found = [
            fetched(self._shape_losses(network, shape, self._inputs(shape, pairs)))
            for shape in shapes
        ]

        def fetch() -> Losses:
            losses = np.empty(len(pairs), dtype=np.float64)
            for shape, own in zip(shapes, found, strict=True):
                losses[[item.pair for item in shape.items]] = own()
            return losses

        return fetch

    def _inputs(self, shape: Shape, pairs: Sequence[Pair]) -> _Inputs:
        """Send what a shape's passes read to the device, in one copy."""
        own = [pairs[item.pair] for item in shape.items]
        prompts, references, base_of, *bases = sent(
            self.device,
            np.array([prompt for prompt, _ in own]),
            np.array([reference for _, reference in own]),
            np.array([item.base for item in shape.items]),
            *([np.array(shape.bases)] if shape.bases else []),
        )
        return _Inputs(own, prompts, references, base_of, bases[0] if bases else None)

    def _shape_losses(self, network: Network, shape: Shape, given: _Inputs) -> Tensor:
        """Score pairs of equal shape, in the order of the shape's items.

        Nothing is waited for, so that the device is never idle.
        """
        prompts, references = given.prompts, given.references
        starts = [item.start for item in shape.items]
        read = None
        if given.bases is not None and isinstance(network, FastNetwork):
            read = self._read(network, given.bases)
        found: list[Tensor] = []

        def run(rows: Sequence[int]) -> None:
            own = slice(rows[0], rows[-1] + 1)
            reused: Sequence[int] = [0] * len(rows)
            if read is not None and isinstance(network, FastNetwork):
                which = given.base_of[own] if len(shape.bases) > 1 else None
                losses = network.losses_after(
                    read, which, starts[own], prompts[own], references[own]
                )
                reused = network.reused(starts[own])
            else:
                losses = network.losses(prompts[own], references[own])
            found.append(losses)
            by_start: dict[int, list[Pair]] = {}
            for pair, start in zip(given.pairs[own], reused, strict=True):
                by_start.setdefault(start, []).append(pair)
            for start, counted in by_start.items():
                self.count(counted, reused=start)

        whole = network.tokens_read(*map(len, given.pairs[0]))
        self.in_batches(range(len(starts)), run, lambda row: whole - starts[row])
        return torch.cat(found)

    def _read(self, network: FastNetwork, bases: Tensor) -> KeyValues | None:
        """Read what candidates start like; None where there is no memory for it."""
        read: list[KeyValues] = []

        def run(ids: Tensor) -> None:
            read.append(network.key_values(ids))

        if not _fits(run, bases):
            torch.cuda.empty_cache()
            return None
        count, tokens = bases.shape
        flops = count * network.prefix_flops(tokens)
        self.meters.forward(0, count * tokens, flops, whole=0.0)
        return read[0]

    def lone_losses(self, pairs: Sequence[Pair]) -> Fetch[Losses]:
        """Score pairs in float32, each alone."""
        fetch = self.lone_token_losses(pairs)
        return lambda: np.array([losses.mean() for losses in fetch()])

    def lone_token_losses(self, pairs: Sequence[Pair]) -> Fetch[list[Losses]]:
        """Score each token [m] of each pair's reference in float32, a pair alone."""
        found = []
        for pair in pairs:
            ids = [np.asarray(part)[None] for part in pair]
            found.append(self.exact.reference_losses(*sent(self.device, *ids))[0])
            self.count([pair])
        if not found:
            return lambda: []
        ends = np.cumsum([len(losses) for losses in found])[:-1]
        fetch = fetched(torch.cat(found))
        return lambda: np.split(fetch(), ends)

    def shifted_losses(self, pair: Pair, shifts: Tensor) -> Losses:
        """Score a pair with what is added to its prompt's embeddings, [B, n, d]."""
        losses = np.empty(len(shifts), dtype=np.float64)

        def run(batch: Sequence[int]) -> None:
            prompt, reference = map(self.ids, pair)
            rows = list(batch)
            found = self.exact.shifted_losses(prompt, reference, shifts[rows])
            self.count([pair] * len(rows))
            losses[rows] = found.cpu().numpy()

        self.in_batches(range(len(shifts)), run)
        return losses

    def gradients(self, pairs: Sequence[Pair]) -> Fetch[list[Tensor]]:
        """Take dL/d(embedding output) [n, d] of each pair, in the search precision.

        What waits for them returns them on the device.
        """
        return self.once_there(self._alike(pairs, self.search.gradients, backward=True))

    def once_there(self, found: T) -> Fetch[T]:
        """Return what waits until the device has computed what is given."""
        wait = reached(self.device)

        def fetch() -> T:
            wait()
            return found

        return fetch

    def _alike(
        self,
        pairs: Sequence[Pair],
        compute: Callable[[Tensor, Tensor], Tensor],
        *,
        backward: bool = False,
    ) -> list[Tensor]:
        """Compute something [B, ...] of pairs, always in passes of as many rows B.

        What remains of a pass is filled up. So what is found of a pair depends on
        nothing but the pair and how many tokens such a pass reads.
        """
        found: dict[int, Tensor] = {}
        for shape in shapes_of(pairs, sharing=False):
            order = [item.pair for item in shape.items]
            own = self._shape_alike([pairs[i] for i in order], compute, backward)
            found.update(zip(order, own, strict=True))
        return [found[i] for i in range(len(pairs))]

    def _shape_alike(
        self,
        pairs: Sequence[Pair],
        compute: Callable[[Tensor, Tensor], Tensor],
        backward: bool,
    ) -> list[Tensor]:
        """Do so for pairs of equal shape."""
        found: list[Tensor] = []
        prompts, references = sent(
            self.device,
            np.array([prompt for prompt, _ in pairs]),
            np.array([reference for _, reference in pairs]),
        )

        def run(rows: int) -> None:
            own = slice(len(found), len(found) + rows)
            with self.faster_products():
                computed = compute(
                    filled(prompts[own], rows), filled(references[own], rows)
                )
            self.count(pairs[own], backward=backward)
            found.extend(computed[: len(pairs[own])])

        tokens = self.exact.tokens_read(*map(len, pairs[0]))
        while len(found) < len(pairs):
            rows = _power_of_two(self.gradient_tokens // tokens)
            if not _fits(run, rows):
                self._halve_alike(rows, tokens)
        return found

    # --- tokens ---------------------------------------------------------------------

    def token_losses(
        self, sequences: Sequence[Ids] | Ids, firsts: Sequence[int]
    ) -> list[Losses]:
        """Score each sequence's tokens from its first scored one on, in float32."""
        result: list[Losses] = [np.empty(0) for _ in sequences]
        scored = [i for i, ids in enumerate(sequences) if len(ids) > firsts[i]]
        for i in scored:
            self._check_length(len(sequences[i]) - 1)

        def run(batch: Sequence[int]) -> None:
            found = self._token_losses([(sequences[i], firsts[i]) for i in batch])
            for i, losses in zip(batch, found, strict=True):
                result[i] = losses

        # Neighbours of like length waste little on padding.
        self.in_batches(sorted(scored, key=lambda i: len(sequences[i])), run)
        return result

    def _token_losses(self, chosen: Sequence[tuple[Ids, int]]) -> list[Losses]:
        """Score each sequence from a token on, in one pass, padded on the right."""
        longest = max(len(ids) for ids, _ in chosen)
        padded = np.zeros((len(chosen), longest), dtype=np.int64)
        scored = np.zeros((len(chosen), longest), dtype=np.bool_)
        for row, (ids, first) in enumerate(chosen):
            padded[row, : len(ids)] = ids
            scored[row, first : len(ids)] = True
        losses = self.exact.token_losses(self.tensor(padded), self.tensor(scored))
        for ids, first in chosen:
            forward, _ = self.exact.pass_flops(first, len(ids) - first)
            self.meters.forward(1, len(ids) - 1, forward)
        ends = np.cumsum(scored.sum(axis=1))[:-1]
        return np.split(losses.double().cpu().numpy(), ends)

    def argmax_correct(self, pairs: Sequence[Pair]) -> list[bool]:
        """Say of each pair, alone, whether all of its reference is the arg-max."""
        found = []
        for prompt, reference in (map(self.ids, pair) for pair in pairs):
            said = predictions(self.exact.model, prompt, reference)
            found.append(bool(torch.equal(said, reference)))
        for pair in pairs:
            self.count([pair])
        return found

    def generate(
        self, prompts: Sequence[Ids], max_new_tokens: int, end: int
    ) -> list[Ids]:
        """Return what is written after each prompt, up to the token `end`."""
        for prompt in prompts:
            self._check_length(self.exact.tokens_read(len(prompt), max_new_tokens))
        written: list[Ids] = [np.empty(0, dtype=np.int64) for _ in prompts]

        def run(batch: Sequence[int]) -> None:
            chosen = [prompts[i] for i in batch]
            found = generate_greedily(self.exact.model, chosen, max_new_tokens, end)
            for i, ids in zip(batch, found, strict=True):
                written[i] = ids

        self.in_batches(sorted(range(len(prompts)), key=lambda i: len(prompts[i])), run)
        for pair in zip(prompts, written, strict=True):
            self.count([pair])
        return written

    # --- counting and batching ------------------------------------------------------

    def count(
        self,
        pairs: Sequence[Pair],
        *,
        backward: bool = False,
        reused: int = 0,
    ) -> None:
        """Put passes on the ledger: what their results needed, not what was reused.

        Rows that fill a pass up count as nothing.
        """
        lengths = len(pairs[0][0]), len(pairs[0][1])
        n_tokens = self.exact.tokens_read(*lengths) - reused
        whole, back = self.exact.pass_flops(*lengths)
        flops = whole
        if reused:
            exact = cast("FastNetwork", self.exact)
            flops = exact.flops_after(reused, *lengths)
        count = len(pairs)
        self.meters.forward(count, count * n_tokens, count * flops, count * whole)
        if backward:
            self.meters.backward(count, count * n_tokens, count * back, count * back)
        each = whole + back if backward else whole
        references = {id(reference): reference for _, reference in pairs}
        for key, own in Counter(id(reference) for _, reference in pairs).items():
            self.meters.attribute(references[key], own * each)

    def in_batches(
        self,
        items: Sequence[T],
        run: Callable[[Sequence[T]], None],
        tokens: Callable[[T], int] | None = None,
    ) -> None:
        """Run over items in batches; smaller ones when memory does not suffice.

        With `tokens`, what each item reads, a batch ends where it is large enough to
        keep the device busy: items that read less get batches of their own.
        """
        done = 0
        while done < len(items):
            most = WHOLE_TEXTS
            if tokens is not None:
                most = self._rows([tokens(item) for item in items[done:]])
            rows = min(self.batch_size, most)
            batch = items[done : done + rows]
            if _fits(run, batch):
                done += len(batch)
            else:
                self._halve_batch(len(batch))

    def _rows(self, tokens: Sequence[int]) -> int:
        """Return how many rows the next pass takes of those that read such tokens.

        What would be a small pass of its own goes with it, where it may.
        """
        if self._slack and sum(tokens) <= (1 + self._slack) * self.tokens_at_once:
            return len(tokens)
        return max(1, self.tokens_at_once // tokens[0])

    def _halve_batch(self, rows: int) -> None:
        if rows == 1:
            raise CellError("a single sequence does not fit into the device's memory")
        self.batch_size = rows // 2
        torch.cuda.empty_cache()

    def _halve_alike(self, rows: int, tokens: int) -> None:
        if rows == 1:
            raise CellError("a single pair does not fit into the device's memory")
        self.gradient_tokens = rows // 2 * tokens
        torch.cuda.empty_cache()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let what is computed inside wait for no passes; it is done in the end."""
        with self.beside():
            yield
        if self._stream is not None:
            self._stream.synchronize()

    def beside(self) -> AbstractContextManager[None]:
        """Let what is begun inside wait for no passes."""
        found: AbstractContextManager[None] = torch.cuda.stream(self._stream)
        return found

    # --- arrays ---------------------------------------------------------------------

    def ids(self, rows: Sequence[Ids] | Ids) -> Tensor:
        """Put rows of ids, equally long, on the device."""
        return self.tensor(np.array(rows, dtype=np.int64))

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """Put an array on the device."""
        return torch.from_numpy(array).to(self.device)


def tensor_float32(wanted: bool) -> AbstractContextManager[None]:
    """Let float32 products of a GPU have the 19 bits of TensorFloat-32, if wanted."""
    products = torch.backends.cuda.matmul
    return replaced(products, "allow_tf32", wanted or products.allow_tf32)


class _Inputs(NamedTuple):
    """What the passes of pairs of equal shape read, on the device."""

    pairs: list[Pair]
    """The pairs, in the order of the shape's items."""
    prompts: Tensor
    references: Tensor
    base_of: Tensor
    """In which row of `bases` each pair's prompt begins."""
    bases: Tensor | None


def _tokens_at_once(model: PreTrainedModel) -> int:
    """Return how many tokens a pass of a GPU's reads.

    The smallest power of two that is enough work, and no more than fits into a part of
    the memory that is free.
    """
    enough = SCORING_WORK / (2 * model.num_parameters())
    tokens = min(max(enough, FEWEST_TOKENS), MOST_TOKENS)
    torch.cuda.empty_cache()  # what was tried before is free again
    free, _ = torch.cuda.mem_get_info(model.device)
    fit = free / 4 / (BYTES_A_TOKEN * model.config.hidden_size)
    return min(2 * _power_of_two(math.ceil(tokens) - 1), _power_of_two(int(fit)))


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


def _fits(run: Callable[[T], None], batch: T) -> bool:
    try:
        run(batch)
    except torch.OutOfMemoryError:
        return False  # from here on, nothing holds the failed pass's tensors
    return True


def _power_of_two(most: int) -> int:
    """Return the highest power of two that is not above a number, 1 at least."""
    return int(1 << max(1, most).bit_length() - 1)


def _network(model: PreTrainedModel) -> Network:
    """Return what scores a model: its configuration says of which kind it is."""
    if model.config.is_encoder_decoder:
        return Seq2SeqNetwork(model)
    return FastNetwork(model) if serves(model) else CausalNetwork(model)


def _in_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Copy a model with its parameters in `dtype` and its buffers untouched.

    Rotary frequencies are a buffer, and bfloat16 would shift every position.
    """
    memo: dict[int, object] = {
        id(parameter): torch.nn.Parameter(parameter.to(dtype), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)
