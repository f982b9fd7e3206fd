"""The only door to a model: losses, gradients, tokens, and what they cost.

Plugins import this module as they are read, so it is light: torch and the networks are
loaded when a subject is made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from harness import subject as room
from harness.base import CellError, Ids
from harness.subject.rules import TokenRules

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.subject.gains import Gains
    from harness.subject.passes import Fetch
    from harness.subject.rounding import Losses
    from harness.subject.scheduler import Lanes, Pair

    References = Sequence[Ids] | Ids
    ComputeGradients = Callable[[Sequence[Ids], Sequence[Ids]], list[Tensor]]
    LaunchGradients = Callable[[Sequence[Ids], Sequence[Ids]], Fetch[list[Tensor]]]
    Transform = Callable[[Sequence[Ids], Sequence[Ids], list[Tensor]], list[Tensor]]


_BESIDE = ThreadPoolExecutor(max_workers=1, thread_name_prefix="texts")
"""Looks at texts while the device, and the process, do other work."""


class Subject:
    """A frozen variant, as metrics and attacks see it.

    Losses are mean nats per reference token. Searching goes in `dtype` and in batches;
    what is reported is computed in float32, and so is what decides between near ties.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int | None = None,
        rules: TokenRules | None = None,
    ) -> None:
        """Take over a float32 model: it moves to `device`, is frozen and set to eval.

        With `dtype` bfloat16, a copy in that precision searches. `batch_size` is by
        default what keeps the device busy. `rules` say what attacks may write, and over
        what; by default, they may write any token.
        """
        self.dtype = dtype
        self._tokenizer = tokenizer
        self._model = model.to(device).eval().requires_grad_(False)
        self._passes = room.Passes.of(self._model, dtype, batch_size)
        self._own_gradients: LaunchGradients | None = None
        self.vocabulary = room.Vocabulary(tokenizer, self._passes.exact.rows, rules)

    # --- what it costs --------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Sequences in one forward pass; halved when the device runs out of memory."""
        return self._passes.batch_size

    @batch_size.setter
    def batch_size(self, sequences: int) -> None:
        self._passes.batch_size = sequences

    @property
    def gradient_tokens(self) -> int:
        """Tokens in one pass that has a gradient or decides near ties, at most.

        But for a pair that is longer; less once the device ran out of memory.
        """
        return self._passes.gradient_tokens

    @gradient_tokens.setter
    def gradient_tokens(self, tokens: int) -> None:
        self._passes.gradient_tokens = tokens

    @property
    def lanes(self) -> Lanes:
        """How many searches should share its passes; see `lockstep`."""
        return self._passes.lanes

    @property
    def ledger(self) -> room.Meter:
        """All that was spent on this subject so far."""
        return self._passes.meters.total

    def metered(self) -> AbstractContextManager[room.Meter]:
        """Meter a span: ``with subject.metered() as meter: ...; meter.cost()``."""
        return self._passes.meters.span()

    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        """Return the analytic FLOPs of scoring one pair, (forward, backward)."""
        return self._passes.exact.pass_flops(prompt_tokens, reference_tokens)

    def refresh(self) -> None:
        """Forget what was computed from weights that have been changed in place.

        Only where the search precision is float32: below it, a copy searches.
        """
        for name in ("embedding", "_gains"):
            vars(self).pop(name, None)

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
        pairs = self._passes.pairs(prompts, references)
        ask = room.Ask.REACHABLE_LOSSES if reachable_only else room.Ask.LOSSES
        losses: Losses = self.launched(ask, pairs)()
        return losses

    def exact_losses(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> Losses:
        """Return losses [C] as `losses` does, each pair alone and in float32.

        Independent of `batch_size` and of the other pairs: this is what is recorded.
        """
        return self._passes.lone_losses(self._passes.pairs(prompts, references))()

    def exact_token_losses(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> list[Losses]:
        """Return the loss [m] in nats of each token of the references, pair by pair.

        They come from the passes that `exact_losses` makes, whose losses are their
        means.
        """
        return self._passes.lone_token_losses(self._passes.pairs(prompts, references))()

    def shifted_losses(self, prompt: Ids, reference: Ids, shifts: Tensor) -> Losses:
        """Return the loss [B] of one pair with its prompt's embeddings shifted.

        `shifts` [B, n, d] are added to the output of the embedding module at the
        prompt's positions. In float32, in batches: what `gradients` says of such steps
        can be held against it.
        """
        [pair] = self._passes.pairs([prompt], [reference])
        return self._passes.shifted_losses(pair, shifts)

    def token_losses(
        self, sequences: Sequence[Ids] | Ids, first_scored: int | Sequence[int]
    ) -> list[Losses]:
        """Return the loss in nats of each sequence's tokens from `first_scored` on.

        A token is predicted from those before it, so `first_scored` is at least 1 (one
        number for all sequences, or one for each). In float32, in batches.
        """
        if isinstance(first_scored, int):
            first_scored = [first_scored] * len(sequences)
        if min(first_scored, default=1) < 1:
            raise ValueError("the first token of a sequence has no prediction")
        return self._passes.token_losses(sequences, first_scored)

    def argmax_correct(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> list[bool]:
        """Say of each pair whether every token of its reference is the arg-max.

        Each token is predicted from the prompt and the reference's tokens before it,
        in float32, each pair alone; of equal logits, the lowest id is the arg-max.
        """
        return self._passes.argmax_correct(self._passes.pairs(prompts, references))

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
        return self._passes.generate(prompts, max_new_tokens, int(end))

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
        another. Where rounding could decide, the pairs in question are scored again (at
        the ledger's cost), in float32 and in passes of a shape that depends on nothing
        beside, so that the batch size never chooses; nor does the search precision, but
        for what it moves beyond the `rounding_margin`.
        Equal losses go to the lower index; losses that are not finite come last.
        """
        search = self.choice(prompts, references, losses, k, lowest=lowest)
        return room.alone(self, search)

    def choice(
        self,
        prompts: Sequence[Ids] | Ids,
        references: References,
        losses: Losses,
        k: int,
        *,
        lowest: bool = False,
    ) -> room.Search[list[int]]:
        """Find what `top` returns, within a search: ``yield from subject.choice(...)``.

        The choices of searches that run in `lockstep` share passes.
        """
        pairs = self._passes.pairs(prompts, references)
        steady = self._passes.search.steady
        margin = partial(room.rounding_margin, self.dtype, steady=steady)
        return room.choice(pairs, losses, k, margin, lowest=lowest)

    # --- gradients ------------------------------------------------------------------

    def gradients(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> list[Tensor]:
        """Return dL/d(embedding output) [n, d] of each pair, float32, on the device.

        Pairs of equal shape go through the search model together, always in as many
        rows: what remains of a pass is filled up. So a pair's gradient depends on
        nothing but the pair, `gradient_tokens` and the device.
        """
        return self._launched_gradients(prompts, references)()

    def _launched_gradients(
        self, prompts: Sequence[Ids] | Ids, references: References
    ) -> Fetch[list[Tensor]]:
        import torch

        pairs = self._passes.pairs(prompts, references)
        with torch.inference_mode(mode=False):
            if self._own_gradients is None:
                return self._passes.gradients(pairs)
            return self._own_gradients(*_parts(pairs))

    def with_gradients(self, transform: Transform) -> Subject:
        """Return a view whose gradients are ``transform(prompts, references, real)``.

        All else, the ledger too, is that of this subject. So a control can take the
        sense out of an attack's gradients, and nothing else.
        """

        def launch(
            prompts: Sequence[Ids], references: Sequence[Ids]
        ) -> Fetch[list[Tensor]]:
            fetch = self._launched_gradients(prompts, references)

            def transformed() -> list[Tensor]:
                real = fetch()
                with self.aside():
                    return transform(prompts, references, real)

            return transformed

        return self._with_gradients(launch)

    def with_gradients_from(self, compute: ComputeGradients) -> Subject:
        """Return a view whose gradients are ``compute(prompts, references)``.

        There are as many references as prompts. No gradient of this subject is taken.
        """

        def launch(
            prompts: Sequence[Ids], references: Sequence[Ids]
        ) -> Fetch[list[Tensor]]:
            found = compute(prompts, references)
            return self._passes.once_there(found)

        return self._with_gradients(launch)

    def _with_gradients(self, launch: LaunchGradients) -> Subject:
        view = copy.copy(self)
        view._own_gradients = launch
        return view

    def metered_by(self, other: Subject) -> Subject:
        """Return a view of this subject whose passes count in the ledger of `other`."""
        view = copy.copy(self)
        view._passes = copy.copy(self._passes)
        view._passes.meters = other._passes.meters
        return view

    def with_rules(self, rules: TokenRules) -> Subject:
        """Return a view of this subject on which attacks keep to other rules."""
        view = copy.copy(self)
        view.vocabulary = room.Vocabulary(self._tokenizer, self.vocabulary.rows, rules)
        vars(view).pop("_gains", None)
        return view

    @cached_property
    def embedding(self) -> Tensor:
        """The output [V, d] of the embedding module for every id, float32."""
        with self.aside():
            return self._passes.exact.embeddings()

    def gains(
        self, prompt_ids: Ids, gradient: Tensor, *, scaled: bool = False
    ) -> Tensor:
        """Return the first-order gain [n, V] of writing token b at position i.

        It is ``(E_b - E_a)^T g_i`` for the token a that stands there [Ebrahimi et al.
        2018], in nats/token, and -inf where b is not allowed or is a itself. A gain
        says the less the farther a token is: `scaled`, it is divided by the squared
        distance, which prefers what is near enough.
        """
        return self._gains.of(self._passes.ids(prompt_ids), gradient, scaled=scaled)

    # --- searches -------------------------------------------------------------------

    def launched(self, ask: room.Ask, pairs: Sequence[Any]) -> Fetch[Any]:
        """Begin with what a search asks for; return what waits for it.

        It has an entry for each pair; see `lockstep`.
        """
        passes = self._passes
        if ask in (room.Ask.LOSSES, room.Ask.REACHABLE_LOSSES):
            passes.check(pairs)
        match ask:
            case room.Ask.DECIDING_LOSSES:
                return passes.deciding_losses(pairs)
            case room.Ask.GRADIENTS:
                return self._launched_gradients(*_parts(pairs))
            case room.Ask.NORMS:
                from harness.subject.gains import norms

                with self.aside():
                    return norms(pairs)
            case room.Ask.TOKENS:
                with passes.beside(), passes.faster_products():
                    return self._gains.best(pairs)
            case room.Ask.FLIPS:
                # Whose gains are noted: to all digits.
                with passes.beside():
                    return self._gains.flips(pairs)
            case room.Ask.MENDED:
                mended = self.vocabulary.mended(pairs)
                return lambda: mended
            case room.Ask.LOSSES:
                return passes.losses(passes.search, pairs)
            case room.Ask.REACHABLE_LOSSES:
                return self._reachable_losses(pairs)

    def _reachable_losses(self, pairs: Sequence[Pair]) -> Fetch[Losses]:
        """Score pairs, while a thread looks which prompts no text encodes to."""
        fetch = self._passes.losses(self._passes.search, pairs)
        reachable = _BESIDE.submit(self.reachable, [prompt for prompt, _ in pairs])

        def losses_of_texts() -> Losses:
            losses = fetch()
            losses[[not one for one in reachable.result()]] = float("nan")
            return losses

        return losses_of_texts

    def aside(self) -> AbstractContextManager[None]:
        """Return what lets computations inside wait for no passes.

        On a GPU they have a stream of their own, and are done when the block ends.
        Passes stay out of it; what they found may come in once it was fetched.
        """
        return self._passes.aside()

    @property
    def metric_products(self) -> str:
        """How products round while a metric measures: ``tf32``, or ``float32``."""
        lower = self._passes.device.type == "cuda" and self.dtype != "float32"
        return "tf32" if lower else "float32"

    def faster_products(self) -> AbstractContextManager[None]:
        """Let float32 products inside round to TensorFloat-32, if the search may too.

        On a GPU they are several times as fast then. Nothing changes where the subject
        searches in float32, or is on a CPU.
        """
        return self._passes.faster_products()

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
        return {
            "search_dtype": self.dtype,
            "pass_tokens": self._passes.tokens_at_once,
            "gradient_tokens": self.gradient_tokens,
            **self._passes.search.settings,
        }

    def fingerprint(self) -> str:
        """Return a hash of the weights, hooks and modes that results depend on.

        Taken before and after a plugin is at work, it says whether that left the
        subject as it was. The weights are read twice where they lie.
        """
        found = self._passes.fingerprint()
        cached = vars(self).get("embedding")
        sound = cached is None or cached.equal(self._passes.exact.embeddings())
        return found if sound else f"{found}, but not the embedding"

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
        return self._passes.max_positions

    def huggingface(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the float32 model and its tokenizer, for libraries that need them.

        What is done with them is not in the ledger; leave the model as it is.
        """
        return self._model, self._tokenizer

    @cached_property
    def _gains(self) -> Gains:
        from harness.subject.gains import Gains

        forbidden = self._passes.tensor(~self.vocabulary.mask())
        return Gains(self.embedding, forbidden)


def _parts(pairs: Sequence[Pair]) -> tuple[list[Ids], list[Ids]]:
    return [prompt for prompt, _ in pairs], [reference for _, reference in pairs]
