"""The only door to a model: losses, gradients, tokens, and what they cost."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch

from harness.errors import CellError
from harness.scoring.causal import CausalNetwork
from harness.scoring.generation import generate_greedily
from harness.scoring.ledger import Meter, Meters
from harness.scoring.network import Network, network_of
from harness.scoring.predictions import predictions
from harness.scoring.rounding import rounding_margin, together, top
from harness.scoring.sharing import Shape, shapes_of
from harness.scoring.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing import TypeGuard

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.interfaces import Ids
    from harness.scoring.prefixes import KeyValues
    from harness.scoring.rounding import Asking, Score
    from harness.scoring.rules import TokenRules

    Losses = NDArray[np.float64]
    Pair = tuple[Ids, Ids]
    References = Sequence[Ids] | Ids
    ComputeGradients = Callable[[Sequence[Ids], Sequence[Ids]], list[Tensor]]
    Transform = Callable[[Sequence[Ids], Sequence[Ids], list[Tensor]], list[Tensor]]

T = TypeVar("T")

TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}
"""How many tokens a pass reads where that is enough to keep such a device busy."""
GRADIENT_WORK = 4e11
"""Weights times tokens of one pass with a gradient on a GPU: about as many keep it as
busy as Python is with launching kernels. On a CPU, a pass reads one pair."""
MOST_GRADIENT_TOKENS = 2048

READ_WHOLE = {"cpu": 0, "cuda": 4096}
"""Pairs of so few tokens in all are read whole: reading first what they share would
launch twice the kernels, and a kernel for few tokens costs what its launch costs."""


class Subject:
    """A frozen variant, as metrics and attacks see it.

    Losses are mean nats per reference token. Searching goes in `dtype` and in batches;
    what is reported, and what decides between near ties, is computed in float32.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
        rules: TokenRules | None = None,
    ) -> None:
        """Take over a float32 model: it moves to `device`, is frozen and set to eval.

        With `dtype` bfloat16, a copy in that precision searches. `rules` say what
        attacks may write, and over what.
        """
        self.batch_size = batch_size
        """Sequences in one forward pass; halved when the device runs out of memory."""
        self.dtype = dtype
        self._tokenizer = tokenizer
        self._model = model.to(device).eval().requires_grad_(False)
        self._exact = network_of(self._model)
        self._exact.check_head()
        self._search = (
            self._exact
            if dtype == "float32"
            else network_of(_in_precision(self._model, getattr(torch, dtype)))
        )
        if isinstance(self._search, CausalNetwork) and self._search is not self._exact:
            self._search.hurry()
        self._meters = Meters(self._model.device)
        self._compute_gradients: ComputeGradients | None = None
        kind = self._model.device.type
        self._tokens_at_once = TOKENS_AT_ONCE.get(kind, 8192)
        self._read_whole = READ_WHOLE.get(kind, 0)
        self.gradient_tokens = _gradient_tokens(kind, self.n_parameters)
        """Tokens in one pass with a gradient, at most, but for a pair that is longer;
        less once the device ran out of memory."""
        self.vocabulary = Vocabulary(tokenizer, self._exact.rows, rules)

    # --- what it costs --------------------------------------------------------------

    @property
    def ledger(self) -> Meter:
        """All that was spent on this subject so far."""
        return self._meters.total

    def metered(self) -> AbstractContextManager[Meter]:
        """Meter a span: ``with subject.metered() as meter: ...; meter.ledger()``."""
        return self._meters.span()

    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        """Return the analytic FLOPs of scoring one pair, (forward, backward)."""
        return self._exact.pass_flops(prompt_tokens, reference_tokens)

    # --- losses ---------------------------------------------------------------------

    def losses(
        self,
        prompts: Sequence[Ids] | Ids,
        references: References,
        *,
        reachable_only: bool = False,
    ) -> Losses:
        """Return the loss [C] of each reference after its prompt, in nats/token.

        `prompts` are C arrays of ids (or one array [C, n]); `references` are C arrays,
        or one array [m] for all. Pairs of equal shape share a batch, so there is no
        padding. In the search precision: for choosing, not for reporting. With
        `reachable_only` it is NaN where no text encodes to the prompt.
        """
        fetch = self._launched(self._search, self._pairs(prompts, references))
        if not reachable_only:
            return fetch()
        reachable = self.reachable(prompts)  # while the device works
        return np.where(reachable, fetch(), np.nan)

    def exact_losses(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> Losses:
        """Return losses [C] as `losses` does, each pair alone and in float32.

        Independent of `batch_size` and of the other pairs: this is what is recorded.
        """
        return self._exact_losses(self._pairs(prompts, references))

    def shifted_losses(self, prompt: Ids, reference: Ids, shifts: Tensor) -> Losses:
        """Return the loss [B] of one pair with its prompt's embeddings shifted.

        `shifts` [B, n, d] are added to the output of the embedding module at the
        prompt's positions. In float32, in batches: what `gradients` says of such steps
        can be held against it.
        """
        [pair] = self._pairs([prompt], [reference])
        losses = np.empty(len(shifts), dtype=np.float64)

        def run(batch: Sequence[int]) -> None:
            found = self._exact.shifted_losses(
                self._ids(prompt), self._ids(reference), shifts[list(batch)]
            )
            self._count([pair] * len(batch))
            losses[list(batch)] = found.cpu().numpy()

        self._in_batches(range(len(shifts)), run)
        return losses

    def token_losses(
        self, sequences: Sequence[Ids] | Ids, first_scored: int | Sequence[int]
    ) -> list[Losses]:
        """Return the loss in nats of each sequence's tokens from `first_scored` on.

        A token is predicted from those before it, so `first_scored` is at least 1 (one
        number for all sequences, or one for each). In float32, in batches.
        """
        firsts = _one_each(first_scored, len(sequences))
        if min(firsts, default=1) < 1:
            raise ValueError("the first token of a sequence has no prediction")
        result: list[Losses] = [np.empty(0) for _ in sequences]
        scored = [i for i, ids in enumerate(sequences) if len(ids) > firsts[i]]

        def run(batch: Sequence[int]) -> None:
            chosen = [(sequences[i], firsts[i]) for i in batch]
            for i, losses in zip(batch, self._token_pass(chosen), strict=True):
                result[i] = losses

        # Neighbours of like length waste little on padding.
        self._in_batches(sorted(scored, key=lambda i: len(sequences[i])), run)
        return result

    def argmax_correct(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> list[bool]:
        """Say of each pair whether every token of its reference is the arg-max.

        Each token is predicted from the prompt and the reference's tokens before it,
        in float32, each pair alone; of equal logits, the lowest id is the arg-max.
        """
        return [self._argmax_correct(pair) for pair in self._pairs(prompts, references)]

    # --- writing --------------------------------------------------------------------

    def generate(self, prompts: Sequence[Ids], max_new_tokens: int) -> list[Ids]:
        """Return what the model writes after each prompt, decoding greedily.

        The ids [<= max_new_tokens] end with the tokenizer's end token where that was
        written. In float32, in batches of prompts of like length; the ledger counts
        each as a pass over the prompt and what was written.
        """
        end = self._tokenizer.eos_token_id
        if end is None:
            raise CellError("the tokenizer has no end-of-text token to stop writing at")
        for prompt in prompts:
            self._check_length(self._exact.tokens_read(len(prompt), max_new_tokens))
        written: list[Ids] = [np.empty(0, dtype=np.int64) for _ in prompts]

        def run(batch: Sequence[int]) -> None:
            chosen = [prompts[i] for i in batch]
            found = generate_greedily(self._model, chosen, max_new_tokens, int(end))
            for i, ids in zip(batch, found, strict=True):
                written[i] = ids

        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        self._in_batches(order, run)
        for pair in zip(prompts, written, strict=True):
            self._count([pair])
        return written

    # --- choosing -------------------------------------------------------------------

    def best(
        self,
        prompts: Sequence[Ids] | Ids,
        references: References,
        losses: Losses,
    ) -> int:
        """Return the index of the highest loss; see `top`."""
        return self.top(prompts, references, losses, 1)[0]

    def top(
        self,
        prompts: Sequence[Ids] | Ids,
        references: References,
        losses: Losses,
        k: int,
        *,
        lowest: bool = False,
    ) -> list[int]:
        """Return the indices of the `k` highest (or `lowest`) losses, best first.

        `losses` are those that `losses` returned for the pairs; where there are fewer
        of them, each is the mean over as many pairs as every other, which follow one
        another. Where rounding could decide, the pairs in question are scored again by
        `exact_losses` (at the ledger's cost), so that the batch size never chooses; nor
        does the search precision, but for what it moves beyond the `rounding_margin`.
        Equal losses go to the lower index; losses that are not finite come last.
        """
        [found] = together([self.choice(prompts, references, losses, k, lowest=lowest)])
        return found

    def choice(
        self,
        prompts: Sequence[Ids] | Ids,
        references: References,
        losses: Losses,
        k: int,
        *,
        lowest: bool = False,
    ) -> Asking[list[int]]:
        """Find what `top` returns; many choices can be made `together`."""
        pairs = self._pairs(prompts, references)
        sign = -1 if lowest else 1
        each = len(pairs) // max(1, len(losses))
        if each * len(losses) != len(pairs):
            raise ValueError(f"{len(losses)} losses are not of {len(pairs)} pairs")

        def scored(score: Score, indices: Sequence[int]) -> Asking[Losses]:
            own = [pair for i in indices for pair in pairs[i * each : (i + 1) * each]]
            exacter = yield score, own
            means: Losses = exacter.reshape(-1, each).mean(axis=1)
            return sign * means

        tokens = max(1, each) * min((len(r) for _, r in pairs), default=1)
        referees = [(m, partial(scored, score)) for m, score in self._referees(tokens)]
        return (yield from top(sign * losses, k, referees))

    # --- gradients ------------------------------------------------------------------

    @torch.inference_mode(mode=False)
    def gradients(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> list[Tensor]:
        """Return dL/d(embedding output) [n, d] of each pair, float32, on the device.

        Pairs of equal shape go through the search model together, always in as many
        rows: what remains of a pass is filled up. So a pair's gradient depends on
        nothing but the pair, `gradient_tokens` and the device.
        """
        pairs = self._pairs(prompts, references)
        if self._compute_gradients is not None:
            return self._compute_gradients([p for p, _ in pairs], [r for _, r in pairs])
        found: dict[int, Tensor] = {}
        for shape in shapes_of(pairs, sharing=False):
            order = [item.pair for item in shape.items]
            gradients = self._shape_gradients([pairs[i] for i in order])
            found.update(zip(order, gradients, strict=True))
        return [found[i] for i in range(len(pairs))]

    def with_gradients(self, transform: Transform) -> Subject:
        """Return a view whose gradients are ``transform(prompts, references, real)``.

        All else, the ledger too, is that of this subject. So a control can take the
        sense out of an attack's gradients, and nothing else.
        """
        return self.with_gradients_from(
            lambda prompts, references: transform(
                prompts, references, self.gradients(prompts, references)
            )
        )

    def with_gradients_from(self, compute: ComputeGradients) -> Subject:
        """Return a view whose gradients are ``compute(prompts, references)``.

        There are as many references as prompts. No gradient of this subject is taken.
        """
        view = copy.copy(self)
        view._compute_gradients = compute
        return view

    def metered_by(self, other: Subject) -> Subject:
        """Return a view of this subject whose passes count in the ledger of `other`."""
        view = copy.copy(self)
        view._meters = other._meters
        return view

    @cached_property
    def embedding(self) -> Tensor:
        """The output [V, d] of the embedding module for every id, float32."""
        return self._exact.embeddings()

    @cached_property
    def squared_norms(self) -> Tensor:
        """The squared length [V] of each row of `embedding`."""
        return self.embedding.square().sum(dim=1)

    def gains(self, prompt_ids: Ids, gradient: Tensor) -> Tensor:
        """Return the first-order gain [n, V] of writing token b at position i.

        It is ``(E_b - E_a)^T g_i`` for the token a that stands there [Ebrahimi et al.
        2018], in nats/token, and -inf where b is not allowed or is a itself.
        """
        current = torch.as_tensor(prompt_ids, device=gradient.device)[:, None]
        scores = gradient @ self.embedding.T
        gains = scores - scores.gather(1, current)
        gains[:, self._forbidden] = -torch.inf
        return gains.scatter_(1, current, -torch.inf)

    # --- text -----------------------------------------------------------------------

    def encode(self, text: str) -> Ids:
        """Return the ids [n] of a text, without the tokens that open or close it."""
        return self.vocabulary.encode(text)

    def decode(self, ids: Ids) -> str:
        """Return the text of ids, special tokens included."""
        return self.vocabulary.decode(ids)

    def reachable(self, prompts: Sequence[Ids] | Ids) -> list[bool]:
        """Say of each prompt whether some text encodes to exactly these ids."""
        return self.vocabulary.reachable(prompts)

    # --- the model itself -----------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """What changes the last bits of a search's losses, beside the batch size."""
        found: dict[str, Any] = {
            "search_dtype": self.dtype,
            "gradient_tokens": self.gradient_tokens,
        }
        if isinstance(self._search, CausalNetwork):
            found |= {"reuses_prefixes": self._search.reuses, **self._search.settings}
        return found

    @property
    def n_parameters(self) -> int:
        """Number of parameters, embeddings included, tied ones once."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder writes the reference."""
        return bool(self._model.config.is_encoder_decoder)

    @property
    def max_positions(self) -> int | None:
        """How many tokens a pass may read; None where the model states no limit."""
        limit = getattr(self._model.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def huggingface(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the float32 model and its tokenizer, for libraries that need them.

        What is done with them is not in the ledger; leave the model as it is.
        """
        return self._model, self._tokenizer

    # --- passes ---------------------------------------------------------------------

    def _pass(self, network: Network, pairs: Sequence[Pair]) -> Losses:
        """Score pairs of equal shape in one forward pass."""
        losses = network.losses(
            self._ids([prompt for prompt, _ in pairs]),
            self._ids([reference for _, reference in pairs]),
        )
        self._count(pairs)
        return losses.cpu().numpy()

    def _referees(self, tokens: int) -> list[tuple[float, Score]]:
        """Each rounding margin, and who decides between what is within it.

        Losses are means over so many tokens.
        """
        alone = (rounding_margin("float32", tokens), self._exact_losses)
        if self._search is self._exact:
            return [alone]
        margin = rounding_margin(self.dtype, tokens)
        if self._model.device.type != "cuda":
            return [(margin, self._float32_losses), alone]
        alone = (rounding_margin("tensorfloat32", tokens), self._exact_losses)
        return [(margin, self._nearly_exact_losses), alone]

    def _float32_losses(self, pairs: Sequence[Pair]) -> Losses:
        """Score pairs in float32, in batches."""
        return self._batched_losses(self._exact, pairs)

    def _nearly_exact_losses(self, pairs: Sequence[Pair]) -> Losses:
        """Score pairs in float32, products in the GPU's faster 19 bits of it."""
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return self._float32_losses(pairs)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def _batched_losses(self, network: Network, pairs: Sequence[Pair]) -> Losses:
        """Score pairs in batches; what candidates share is read once."""
        return self._launched(network, pairs)()

    def _launched(
        self, network: Network, pairs: Sequence[Pair]
    ) -> Callable[[], Losses]:
        """Have pairs scored; return what waits for their losses."""
        tokens = sum(len(prompt) + len(reference) for prompt, reference in pairs)
        sharing = _reuses(network) and tokens > self._read_whole
        shapes = shapes_of(pairs, sharing=sharing)
        inputs = [self._inputs(shape, pairs) for shape in shapes]
        found = [
            self._shape_losses(network, *each)
            for each in zip(shapes, inputs, strict=True)
        ]

        def fetch() -> Losses:
            losses = np.empty(len(pairs), dtype=np.float64)
            for shape, own in zip(shapes, found, strict=True):
                losses[[item.pair for item in shape.items]] = own.cpu().numpy()
            return losses

        return fetch

    def _inputs(self, shape: Shape, pairs: Sequence[Pair]) -> _Inputs:
        """Put what a shape's passes read on the device, which waits for its passes."""
        own = [pairs[item.pair] for item in shape.items]
        return _Inputs(
            own,
            self._ids([prompt for prompt, _ in own]),
            self._ids([reference for _, reference in own]),
            self._ids(shape.bases) if shape.bases else None,
            self._tensor(np.array([item.base for item in shape.items])),
        )

    def _shape_losses(self, network: Network, shape: Shape, given: _Inputs) -> Tensor:
        """Score pairs of equal shape, in the order of the shape's items.

        Nothing is waited for, so that the device is never idle.
        """
        prompts, references = given.prompts, given.references
        starts = [item.start for item in shape.items]
        read = None
        if given.bases is not None and _reuses(network):
            read = self._read(network, given.bases)
        found: list[Tensor] = []

        def run(rows: Sequence[int]) -> None:
            own = slice(rows[0], rows[-1] + 1)
            reused: Sequence[int] = [0] * len(rows)
            if read is not None and _reuses(network):
                which = given.base_of[own] if len(shape.bases) > 1 else None
                losses = network.losses_after(
                    read, which, starts[own], prompts[own], references[own]
                )
                reused = network.reused(starts[own])
            else:
                losses = network.losses(prompts[own], references[own])
            found.append(losses)
            for start, count in Counter(reused).items():
                self._count(given.pairs[own][:count], reused=start)

        whole = network.tokens_read(*map(len, given.pairs[0]))
        self._in_batches(range(len(starts)), run, lambda row: whole - starts[row])
        return torch.cat(found)

    def _read(self, network: CausalNetwork, bases: Tensor) -> KeyValues | None:
        """Read what candidates start like; None where there is no memory for it."""
        read: list[KeyValues] = []

        def run(ids: Tensor) -> None:
            read.append(network.key_values(ids))

        if not _fits(run, bases):
            torch.cuda.empty_cache()
            return None
        count, tokens = bases.shape
        flops = count * network.prefix_flops(tokens)
        self._meters.forward(0, count * tokens, flops, whole=0.0)
        return read[0]

    def _exact_losses(self, pairs: Sequence[Pair]) -> Losses:
        losses = [self._pass(self._exact, [pair])[0] for pair in pairs]
        return np.array(losses, dtype=np.float64)

    def _argmax_correct(self, pair: Pair) -> bool:
        prompt, reference = (self._ids(ids) for ids in pair)
        said = predictions(self._model, prompt, reference)
        self._count([pair])
        return bool(torch.equal(said, reference))

    def _shape_gradients(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """Return the gradient [n, d] of each of some pairs of equal shape."""
        found: list[Tensor] = []

        def run(rows: int) -> None:
            own = pairs[len(found) : len(found) + rows]
            filled = [*own, *[own[-1]] * (rows - len(own))]
            gradients = self._search.gradients(
                self._ids([prompt for prompt, _ in filled]),
                self._ids([reference for _, reference in filled]),
            )
            self._count(own, backward=True, rows=rows)
            found.extend(gradients[: len(own)])

        tokens = self._exact.tokens_read(*map(len, pairs[0]))
        while len(found) < len(pairs):
            rows = _power_of_two(self.gradient_tokens // tokens)
            if not _fits(run, rows):
                self._halve_gradients(rows, tokens)
        return found

    def _token_pass(self, chosen: Sequence[tuple[Ids, int]]) -> list[Losses]:
        """Score the tail of each sequence of a batch, padded on the right."""
        longest = max(len(ids) for ids, _ in chosen)
        padded = np.zeros((len(chosen), longest), dtype=np.int64)
        scored = np.zeros((len(chosen), longest), dtype=np.bool_)
        for row, (ids, first) in enumerate(chosen):
            self._check_length(len(ids) - 1)
            padded[row, : len(ids)] = ids
            scored[row, first : len(ids)] = True
        losses = self._exact.token_losses(self._tensor(padded), self._tensor(scored))
        for ids, first in chosen:
            forward, _ = self.pass_flops(first, len(ids) - first)
            self._meters.forward(1, len(ids) - 1, forward)
        ends = np.cumsum(scored.sum(axis=1))[:-1]
        return np.split(losses.double().cpu().numpy(), ends)

    def _count(
        self,
        pairs: Sequence[Pair],
        *,
        backward: bool = False,
        reused: int = 0,
        rows: int | None = None,
    ) -> None:
        """Put passes on the ledger: what was computed, not the tokens reused.

        Where a pass was filled up, `rows` is what it had: they cost, but count as
        nothing that was asked for.
        """
        lengths = len(pairs[0][0]), len(pairs[0][1])
        n_tokens = self._exact.tokens_read(*lengths) - reused
        whole, back = self.pass_flops(*lengths)
        flops = whole
        if reused:
            exact = cast("CausalNetwork", self._exact)
            flops = exact.flops_after(reused, *lengths)
        count = len(pairs)
        made = rows or count
        self._meters.forward(count, count * n_tokens, made * flops, count * whole)
        if backward:
            self._meters.backward(count, count * n_tokens, made * back, count * back)

    def _in_batches(
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
            rows = self.batch_size
            if tokens is not None:
                rows = min(rows, max(1, self._tokens_at_once // tokens(items[done])))
            batch = items[done : done + rows]
            if _fits(run, batch):
                done += len(batch)
            else:
                self._halve_batch(len(batch))

    def _halve_batch(self, rows: int) -> None:
        if rows == 1:
            raise CellError("a single sequence does not fit into the device's memory")
        self.batch_size = rows // 2
        torch.cuda.empty_cache()

    def _halve_gradients(self, rows: int, tokens: int) -> None:
        if rows == 1:
            raise CellError("a single gradient does not fit into the device's memory")
        self.gradient_tokens = rows // 2 * tokens
        torch.cuda.empty_cache()

    # --- arrays ---------------------------------------------------------------------

    def _pairs(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> list[Pair]:
        if isinstance(references, np.ndarray) and references.ndim == 1:
            references = [references] * len(prompts)
        pairs: list[Pair] = list(zip(prompts, references, strict=True))
        for n, m in {(len(prompt), len(reference)) for prompt, reference in pairs}:
            if not n or not m:
                raise ValueError("a prompt and a reference need at least one token")
            self._check_length(self._exact.tokens_read(n, m))
        return pairs

    def _check_length(self, n_tokens: int) -> None:
        if self.max_positions is not None and n_tokens > self.max_positions:
            raise CellError(
                f"a sequence of {n_tokens} tokens is too long for a model of "
                f"{self.max_positions} positions"
            )

    def _ids(self, rows: Sequence[Ids] | Ids) -> Tensor:
        return self._tensor(np.array(rows, dtype=np.int64))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)

    @cached_property
    def _forbidden(self) -> Tensor:
        return self._tensor(~self.vocabulary.mask())


class _Inputs(NamedTuple):
    """What the passes of pairs of equal shape read, on the device."""

    pairs: list[Pair]
    """The pairs, in the order of the shape's items."""
    prompts: Tensor
    references: Tensor
    bases: Tensor | None
    base_of: Tensor
    """In which row of `bases` each pair's prompt begins."""


def _gradient_tokens(device: str, n_parameters: int) -> int:
    if device != "cuda":
        return 1
    return max(1, min(MOST_GRADIENT_TOKENS, int(GRADIENT_WORK / n_parameters)))


def _reuses(network: Network) -> TypeGuard[CausalNetwork]:
    return isinstance(network, CausalNetwork) and network.reuses


def _fits(run: Callable[[T], None], batch: T) -> bool:
    try:
        run(batch)
    except torch.OutOfMemoryError:
        return False  # from here on, nothing holds the failed pass's tensors
    return True


def _power_of_two(most: int) -> int:
    """Return the highest power of two that is not above a number, 1 at least."""
    return int(1 << max(1, most).bit_length() - 1)


def _one_each(first: int | Sequence[int], count: int) -> list[int]:
    return [first] * count if isinstance(first, int) else list(first)


def _in_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Copy a model with its parameters in `dtype` and its buffers untouched.

    Rotary frequencies are a buffer, and bfloat16 would shift every position.
    """
    memo: dict[int, object] = {
        id(parameter): torch.nn.Parameter(parameter.to(dtype), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)
