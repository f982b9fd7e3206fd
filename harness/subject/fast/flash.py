"""Attention to a shared prefix and to own tokens in one kernel, for CUDA devices.

The key/values of the prefix are read where they are: no sequence gets a copy. Rotary
embeddings are applied in place. Import it only where `can_compile` says yes.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

QUERIES, KEYS = 64, 32
"""How many a program works on at a time; of eleven choices, the fastest on an H200 with
heads of 128."""
WARPS, STAGES = 4, 3
"""How many warps it has, and how many blocks of keys are on their way at once."""
TURNED = 64
"""Queries and keys that a program turns."""


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _step(q, k, v, seen, highest, total, sums, scale):  # type: ignore[no-untyped-def]
    scores = tl.where(seen, tl.dot(q, tl.trans(k)) * scale, -1.0e30)
    higher = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.math.exp2(scores - higher[:, None])
    shrink = tl.math.exp2(highest - higher)
    total = total * shrink + tl.sum(weights, 1)
    sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None])
    return higher, total, sums


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _loaded(at, size, width: tl.constexpr, padded: tl.constexpr):  # type: ignore[no-untyped-def]
    # Heads of 80 lie in blocks of 128: what is behind them is zero.
    if padded == width:
        found = tl.load(at)
    else:
        found = tl.load(at, mask=(size < width)[None, :], other=0.0)
    return found


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _kernel(  # type: ignore[no-untyped-def]
    query, key, value, prefix_key, prefix_value, rows, starts, begins, out,
    q_h, q_n, k_h, k_n, v_h, v_n,
    pk_b, pk_h, pk_n, pv_b, pv_h, pv_n,
    whole, heads, shared, scale,
    has_prefix: tl.constexpr, has_rows: tl.constexpr,
    width: tl.constexpr, padded: tl.constexpr,
    queries: tl.constexpr, keys_at_once: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(1) * queries
    batch = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    own_head = head // shared
    n_prefix = tl.load(starts + batch)
    n_own = whole - n_prefix
    if first >= n_own:
        return
    begin = tl.load(begins + batch).to(tl.int64)
    at = first + tl.arange(0, queries)
    near = tl.arange(0, keys_at_once)
    size = tl.arange(0, padded)
    # Rows beyond the end repeat the last: they are computed and not stored.
    last = tl.minimum(at, n_own - 1)
    where = head * q_h + (begin + last)[:, None] * q_n
    q = _loaded(query + where + size[None, :], size, width, padded)
    highest = tl.full([queries], -1.0e30, tl.float32)
    total = tl.zeros([queries], tl.float32)
    sums = tl.zeros([queries, padded], tl.float32)
    keys = key + begin * k_n + own_head * k_h
    values = value + begin * v_n + own_head * v_h
    # Keys come in the blocks that they lie in from the first token on, wherever the
    # prefix ends: so a row is summed in the same order after any prefix.
    own_from = tl.cdiv(n_prefix, keys_at_once) * keys_at_once - n_prefix
    if has_prefix:
        row = begin * 0
        if has_rows:
            row = tl.load(rows + batch).to(tl.int64)
        first_keys = prefix_key + row * pk_b + own_head * pk_h
        first_values = prefix_value + row * pv_b + own_head * pv_h
        whole_blocks = n_prefix // keys_at_once * keys_at_once
        for start in range(0, whole_blocks, keys_at_once):
            j = start + near
            k = _loaded(
                first_keys + j[:, None] * pk_n + size[None, :], size, width, padded
            )
            v = _loaded(
                first_values + j[:, None] * pv_n + size[None, :], size, width, padded
            )
            # All are seen. A compiler that knew it would round otherwise here.
            seen = (j - n_prefix)[None, :] <= at[:, None]
            highest, total, sums = _step(q, k, v, seen, highest, total, sums, scale)
        for start in range(whole_blocks, n_prefix, keys_at_once):  # none, or one
            j = start + near
            there = (j < n_prefix)[:, None]
            before = tl.minimum(j, n_prefix - 1)[:, None]
            after = tl.minimum(tl.maximum(j - n_prefix, 0), n_own - 1)[:, None]
            k = tl.where(
                there,
                _loaded(
                    first_keys + before * pk_n + size[None, :], size, width, padded
                ),
                _loaded(keys + after * k_n + size[None, :], size, width, padded),
            )
            v = tl.where(
                there,
                _loaded(
                    first_values + before * pv_n + size[None, :], size, width, padded
                ),
                _loaded(values + after * v_n + size[None, :], size, width, padded),
            )
            seen = (j - n_prefix)[None, :] <= at[:, None]
            highest, total, sums = _step(q, k, v, seen, highest, total, sums, scale)
    for start in range(own_from, tl.minimum(first + queries, n_own), keys_at_once):
        j = start + near
        there = tl.minimum(j, n_own - 1)
        k = _loaded(keys + there[:, None] * k_n + size[None, :], size, width, padded)
        v = _loaded(values + there[:, None] * v_n + size[None, :], size, width, padded)
        seen = j[None, :] <= at[:, None]
        highest, total, sums = _step(q, k, v, seen, highest, total, sums, scale)
    result = sums / total[:, None]
    where = ((begin + at[:, None]) * heads + head) * width + size[None, :]
    stored = (at < n_own)[:, None]
    if padded != width:
        stored = stored & (size < width)[None, :]
    tl.store(out + where, result.to(q.dtype), mask=stored)


@torch.library.custom_op(
    "harness::attend_packed",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor? prefix_keys, "
    "Tensor? prefix_values, Tensor? rows, Tensor starts, Tensor first, SymInt whole, "
    "float scale) -> Tensor",
)
def attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_keys: Tensor | None,
    prefix_values: Tensor | None,
    rows: Tensor | None,
    starts: Tensor,
    first: Tensor,
    whole: int,
    scale: float,
) -> Tensor:
    """Return [1, T, heads, size] for queries [1, heads, T, size] of packed rows.

    Keys and values are [1, own heads, T, size]; those of the prefix [G, own heads, p,
    size], or None where no row has any. Row b has `whole` tokens. It goes on after the
    first `starts[b]` of row `rows[b]` of the prefix; its own tokens begin at `first[b]`
    among the T packed ones. All have unit stride in their last dimension. What is found
    for a token does not depend on how many of those before it are the prefix's.
    """
    _, heads, total, size = query.shape
    out = query.new_empty(1, total, heads, size)
    own = (x.stride(d) for x in (query, key, value) for d in (1, 2))
    # Where there is no prefix, nothing is read of what stands for it.
    pair = [
        x if y is None else y for x, y in ((key, prefix_keys), (value, prefix_values))
    ]
    before = (x.stride(d) for x in pair for d in (0, 1, 2))
    _kernel[(len(starts) * heads, triton.cdiv(whole, QUERIES))](
        query, key, value, *pair,
        starts if rows is None else rows, starts, first, out,
        *own, *before,
        whole, heads, heads // key.shape[1],
        scale * 1.4426950408889634,  # exp(x) = 2 ** (x log2 e)
        has_prefix=prefix_keys is not None, has_rows=rows is not None,
        width=size, padded=triton.next_power_of_2(size),
        queries=QUERIES, keys_at_once=KEYS, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out


@attend_packed.register_fake
def _(query: Tensor, *others: Tensor | float | None) -> Tensor:
    _, heads, total, size = query.shape
    return query.new_empty(1, total, heads, size)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _turn(  # type: ignore[no-untyped-def]
    states, cos, sin, n_states, tokens, heads, size, half,
    lanes: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    # One row for each token, head, and query or key of the two.
    at = tl.program_id(0) * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)
    there = (at < n_states)[:, None] & (lane < half)[None, :]
    pair = (at // 2).to(tl.int64)
    start = states + (pair * 3 + at % 2)[:, None] * size + lane[None, :]
    position = (pair // heads % tokens)[:, None] * (2 * half) + lane[None, :]
    x = tl.load(start, mask=there).to(tl.float32)
    y = tl.load(start + half, mask=there).to(tl.float32)
    c = tl.load(cos + position, mask=there).to(tl.float32)
    s = tl.load(sin + position, mask=there).to(tl.float32)
    tl.store(start, x * c - y * s, mask=there)
    c = tl.load(cos + position + half, mask=there).to(tl.float32)
    s = tl.load(sin + position + half, mask=there).to(tl.float32)
    tl.store(start + half, y * c + x * s, mask=there)


@torch.library.custom_op(
    "harness::turn",
    mutates_args=("states",),
    schema="(Tensor(a!) states, Tensor cos, Tensor sin) -> ()",
)
def turn(states: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn queries and keys by their position, in place [Su et al. 2021].

    `states` [B, q, heads, 3 * size] hold each head's query, key and value side by side;
    `cos` and `sin` are [q, r]. The first r dimensions of a query or key are turned:
    dimension i < r / 2 together with i + r / 2.
    """
    count, tokens, heads, width = states.shape
    n_states, half = count * tokens * heads * 2, cos.shape[1] // 2
    _turn[(triton.cdiv(n_states, TURNED),)](
        states, cos.contiguous(), sin.contiguous(),
        n_states, tokens, heads, width // 3, half,
        lanes=triton.next_power_of_2(half), block=TURNED,
    )  # fmt: skip


@turn.register_fake
def _(states: Tensor, cos: Tensor, sin: Tensor) -> None:
    return None
