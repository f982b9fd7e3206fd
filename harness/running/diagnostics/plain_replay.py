"""Score rows of samples with plain transformers: a script, run in a fresh process.

It reads a JSON list of jobs from standard input, one for each frozen subject, and
prints the largest difference from the recorded losses for each cell. With the argument
``questions``, a job is a list of questions about a subject, and each answer is a line.
It takes nothing of the harness, but for the activations of a subject that plain
transformers does not know: where it needs those, it says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

Ids = tuple[int, ...]


def main() -> None:
    """Do all jobs, and print one object: an answer for each cell."""
    _import_ahead()
    if sys.argv[1:] == ["questions"]:
        for job in json.load(sys.stdin):
            for answer in _answered(job):
                print(json.dumps(answer), flush=True)
        return
    answers: dict[str, Any] = {}
    for job in json.load(sys.stdin):
        score = _scorer(job["model"], job.get("device", "cpu"))
        for cell in job["cells"]:
            samples = Path(cell["samples"]).read_bytes()
            digest = hashlib.sha256(samples).hexdigest()
            found = score(samples.decode("utf-8").splitlines(), cell["rows"])
            answers[cell["id"]] = {**found, "samples_sha256": digest}
    print(json.dumps(answers))


def _import_ahead() -> None:
    """Import what loading a model will, while the jobs are not known yet.

    What fails here is said where a model is loaded.
    """
    with contextlib.suppress(Exception):
        import torch  # noqa: F401
        from transformers import (  # noqa: F401
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForSeq2SeqLM,
        )


def _scorer(folder: str, device: str) -> Callable[[list[str], int], dict[str, Any]]:
    """Return what scores lines of samples, or says why the model is not there."""
    try:
        model, plain = _load(folder, device)
    except Exception as error:  # noqa: BLE001 - the answer is that it cannot
        failed = {"error": f"cannot be loaded: {error}"}
        return lambda lines, count: failed
    # Cells of a subject have clean prompts in common, and rows may have checkpoints.
    loss = cache(partial(_loss, model))
    return partial(_replayed, loss, plain)


def _load(folder: str, device: str) -> tuple[Any, bool]:
    """Return the model on the device, on the CPU where that has no room for it."""
    import torch

    model, plain = _read(folder)
    try:
        return model.to(device), plain
    except torch.OutOfMemoryError:
        return model.to("cpu"), plain


def _read(folder: str) -> tuple[Any, bool]:
    """Return the model, and whether plain transformers knows all of it."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
    )

    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    kind = AutoModelForCausalLM
    if config.is_encoder_decoder:
        kind = AutoModelForSeq2SeqLM
    known: dict[str, Any] = {
        "dtype": torch.float32,
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    try:
        return kind.from_pretrained(folder, **known).eval(), True
    except KeyError:
        from harness.models import register_activations

        register_activations()
        return kind.from_pretrained(folder, **known).eval(), False


def _replayed(
    loss: Callable[[Ids, Ids], float], plain: bool, lines: list[str], count: int
) -> dict[str, Any]:
    """Score a few rows of a cell: clean, attacked, and attacked with less budget."""
    rows = [row for row in map(json.loads, lines) if row["status"] != "error"]
    every = max(1, len(rows) // count)
    chosen = rows[::every][:count]
    apart = [
        abs(loss(tuple(prompt), tuple(row["reference_ids"])) - expected)
        for row in chosen
        for prompt, expected in _scored(row)
    ]
    answer = {"rows": len(chosen), "passes": len(apart), "plain": plain}
    if not all(map(math.isfinite, apart)):
        return {**answer, "largest": None, "error": "a replayed loss is not finite"}
    return {**answer, "largest": max(apart, default=None)}


def _scored(row: dict[str, Any]) -> Iterator[tuple[list[int], float]]:
    yield row["clean_prompt_ids"], row["clean_loss"]
    for attacked in (row, *row.get("checkpoints", ())):
        if attacked["adversarial_prompt_ids"] is not None:
            yield attacked["adversarial_prompt_ids"], attacked["adversarial_loss"]


def _loss(model: Any, prompt: Ids, reference: Ids) -> float:
    losses, _ = _token_losses(model, prompt, reference)
    return math.fsum(losses) / len(losses)


# --- questions ----------------------------------------------------------------------


def _answered(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Answer the questions about one subject, each by its number."""
    try:
        asked = _Asked(job["model"], job.get("device", "cpu"), job.get("allowed"))
    except Exception as error:  # noqa: BLE001 - the answer is that it cannot
        yield from ({"id": x["id"], "error": str(error)} for x in job["questions"])
        return
    for question in job["questions"]:
        try:
            found = getattr(asked, question["ask"])(**question["about"])
            yield {"id": question["id"], "plain": asked.plain, **found}
        except Exception as error:  # noqa: BLE001
            yield {"id": question["id"], "error": f"cannot be scored: {error}"}


class _Asked:
    """A frozen subject and its tokenizer, as plain transformers loads them."""

    def __init__(self, folder: str, device: str, allowed: list[int] | None) -> None:
        from transformers import AutoTokenizer

        self.model, self.plain = _load(folder, device)
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self.allowed = allowed or []
        self._known: dict[tuple[Ids, Ids], Any] = {}

    def losses(self, prompts: list[list[int]], reference: list[int]) -> dict[str, Any]:
        """Return the losses of the reference's tokens after each prompt, in nats.

        And whether each of them is the arg-max after those before it.
        """
        found = [self._tokens(tuple(x), tuple(reference)) for x in prompts]
        return {"losses": [x[0] for x in found], "right": [x[1] for x in found]}

    def texts(self, ids: list[list[int]]) -> dict[str, Any]:
        """Return the text of prompts, and whether it is encoded as the same prompt."""
        reachable = [self._comes_back(one) for one in ids]
        return {"texts": [self._decoded(one) for one in ids], "reachable": reachable}

    def rolling(self, text: str, context: int | None, stride: int | None) -> Any:
        """Return number and nats of a text's tokens, scored in windows.

        The first token is scored after the beginning of text, or its end where there
        is none; a further window scores `stride` tokens, and is as long as the first.
        """
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        special = not text.startswith(self.tokenizer.decode(start))
        ids = self.tokenizer(text, add_special_tokens=special, verbose=False)
        tokens = [start, *ids["input_ids"]]
        context = (
            context
            or getattr(self.model.config, "max_position_embeddings", None)
            or 2048
        )
        nats, scored, end = 0.0, 1, min(len(tokens), context + 1)
        while scored < len(tokens):
            window = tokens[max(0, end - context - 1) : end]
            first = scored - max(0, end - context - 1)
            losses, _ = self._tokens(tuple(window[:first]), tuple(window[first:]))
            nats += math.fsum(losses)
            scored, end = end, min(len(tokens), end + (stride or context))
        return {"tokens": len(tokens) - 1, "nats": nats}

    def flips(
        self,
        prompt: list[int],
        reference: list[int],
        flips: list[list[int]],
        free: list[int],
        **sizes: Any,
    ) -> dict[str, Any]:
        """Return first-order gains of flips, losses of some, and how true slopes are.

        The error of slopes is over the first flips and those of highest gain, against
        central differences of losses with shifted embeddings (Richardson).
        """
        import torch

        table = self.model.get_input_embeddings().weight.detach()
        embedded = table[torch.tensor(prompt, device=table.device)][None]
        embedded = embedded.clone().requires_grad_(True)
        loss = self._embedded(embedded, reference)[0]
        (gradient,) = torch.autograd.grad(loss, embedded)
        gains = gradient[0] @ table.T
        gains = gains - gains.gather(
            1, torch.tensor(prompt, device=table.device)[:, None]
        )
        own = [float(gains[i, t]) for i, t in flips]
        masked = torch.full_like(gains, -math.inf)
        rows = torch.tensor(free, device=table.device)[:, None]
        columns = torch.tensor(self.allowed, device=table.device)[None]
        masked[rows, columns] = gains[rows, columns]
        masked[range(len(prompt)), prompt] = -math.inf
        best = masked.nan_to_num(nan=-math.inf).flatten().topk(sizes["top"]).indices
        top = [list(divmod(int(i), table.shape[0])) for i in best]
        tried = [*flips[: sizes["directions"]], *top]
        slopes = [
            self._slope(embedded, table, prompt, reference, *x, **sizes) for x in tried
        ]
        known = [float(gains[i, t]) for i, t in tried]
        error = math.fsum((a - b) ** 2 for a, b in zip(slopes, known, strict=True))
        scale = max(math.fsum(x * x for x in slopes), len(tried) * sizes["floor"] ** 2)
        scored = [
            self._mean([*prompt[:i], t, *prompt[i + 1 :]], reference)
            for i, t in flips[: sizes["scored"]]
        ]
        return {"gains": own, "losses": scored, "untruth": math.sqrt(error / scale)}

    def _slope(
        self,
        embedded: Any,
        table: Any,
        prompt: list[int],
        reference: list[int],
        position: int,
        token: int,
        step: float,
        **_: Any,
    ) -> float:
        import torch

        shift = torch.zeros_like(embedded)
        shift[0, position] = table[token] - table[prompt[position]]
        steps = (step, -step, step / 2, -step / 2)
        moved = torch.cat([embedded.detach() + size * shift for size in steps])
        with torch.no_grad():
            far_up, far_down, up, down = self._embedded(moved, reference).tolist()
        near, far = (up - down) / step, (far_up - far_down) / (2 * step)
        return float((4 * near - far) / 3)

    def _embedded(self, embedded: Any, reference: list[int]) -> Any:
        """Return the reference's mean loss after each embedded prompt [n, t, d]."""
        import torch

        count = len(embedded)
        target = torch.tensor(reference, device=self.model.device).expand(count, -1)
        if self.model.config.is_encoder_decoder:
            logits = self.model(inputs_embeds=embedded, labels=target).logits
        else:
            after = self.model.get_input_embeddings()(target)
            whole = torch.cat([embedded, after], dim=1)
            logits = self.model(inputs_embeds=whole).logits
            logits = logits[:, embedded.shape[1] - 1 : -1]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), target, reduction="none"
        )
        return losses.mean(dim=1)

    def _mean(self, prompt: list[int], reference: list[int]) -> float:
        losses, _ = self._tokens(tuple(prompt), tuple(reference))
        return math.fsum(losses) / len(losses)

    def _tokens(self, prompt: Ids, reference: Ids) -> Any:
        key = prompt, reference
        if key not in self._known:
            self._known[key] = _token_losses(self.model, prompt, reference)
        return self._known[key]

    def _decoded(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _comes_back(self, ids: list[int]) -> bool:
        if any(not 0 <= token < len(self.tokenizer) for token in ids):
            return False
        inner = self._encoded("a", special=False)
        outer = self._encoded("a", special=True)
        at = next(i for i in range(len(outer)) if outer[i : i + len(inner)] == inner)
        opening, closing = outer[:at], outer[at + len(inner) :]
        if closing and ids[-len(closing) :] == closing:
            ids = ids[: -len(closing)]
        if opening and ids[: len(opening)] == opening:
            ids = ids[len(opening) :]
        return self._encoded(self._decoded(ids), special=False) == ids

    def _encoded(self, text: str, *, special: bool) -> list[int]:
        found = self.tokenizer(text, add_special_tokens=special, verbose=False)
        return list(found["input_ids"])


def _token_losses(model: Any, prompt: Ids, reference: Ids) -> tuple[list[float], bool]:
    import torch

    target = torch.tensor(reference, device=model.device)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            ids = torch.tensor([prompt], device=model.device)
            logits = model(input_ids=ids, labels=target[None]).logits[0]
        else:
            ids = torch.tensor([prompt + reference], device=model.device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    right = bool((logits.argmax(dim=-1) == target).all())
    return [float(x) for x in losses], right


if __name__ == "__main__":
    main()
