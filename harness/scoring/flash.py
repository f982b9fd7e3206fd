"""Attention to a shared prefix and to own tokens in one kernel, for CUDA devices.

The key/values of the prefix are read where they are: no sequence gets a copy. Import
it only where `can_compile` says yes.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

BLOCK = 64
"""Queries, and keys, that a program works on at a time."""


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
def _kernel(  # type: ignore[no-untyped-def]
    query, key, value, prefix_key, prefix_value, rows, out,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    pk_b, pk_h, pk_n, pv_b, pv_h, pv_n,
    n_own, n_prefix, heads, shared, scale,
    has_rows: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(1) * block
    batch = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    own_head = head // shared
    at = first + tl.arange(0, block)
    near = tl.arange(0, block)
    size = tl.arange(0, width)
    # Rows beyond the end repeat the last: they are computed and not stored.
    last = tl.minimum(at, n_own - 1)
    b64 = batch.to(tl.int64)
    q = tl.load(query + b64 * q_b + head * q_h + last[:, None] * q_n + size[None, :])
    row = b64 * 0
    if has_rows:
        row = tl.load(rows + batch).to(tl.int64)
    highest = tl.full([block], -1.0e30, tl.float32)
    total = tl.zeros([block], tl.float32)
    sums = tl.zeros([block, width], tl.float32)
    keys = prefix_key + row * pk_b + own_head * pk_h
    values = prefix_value + row * pv_b + own_head * pv_h
    for start in range(0, n_prefix, block):
        j = start + near
        there = tl.minimum(j, n_prefix - 1)
        k = tl.load(keys + there[:, None] * pk_n + size[None, :])
        v = tl.load(values + there[:, None] * pv_n + size[None, :])
        seen = (j < n_prefix)[None, :]
        highest, total, sums = _step(q, k, v, seen, highest, total, sums, scale)
    keys = key + b64 * k_b + own_head * k_h
    values = value + b64 * v_b + own_head * v_h
    for start in range(0, tl.minimum(first + block, n_own), block):
        j = start + near
        there = tl.minimum(j, n_own - 1)
        k = tl.load(keys + there[:, None] * k_n + size[None, :])
        v = tl.load(values + there[:, None] * v_n + size[None, :])
        seen = j[None, :] <= at[:, None]
        highest, total, sums = _step(q, k, v, seen, highest, total, sums, scale)
    result = sums / total[:, None]
    where = ((b64 * n_own + at[:, None]) * heads + head) * width + size[None, :]
    tl.store(out + where, result.to(q.dtype), mask=(at < n_own)[:, None])


@torch.library.custom_op(
    "harness::attend_after",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor prefix_keys, "
    "Tensor prefix_values, Tensor? rows, float scale) -> Tensor",
)
def attend_after(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_keys: Tensor,
    prefix_values: Tensor,
    rows: Tensor | None,
    scale: float,
) -> Tensor:
    """Return [B, q, heads, size] for queries [B, heads, q, size].

    Keys and values are [B, own heads, q, size]; those of the prefix [G, own heads, p,
    size], and sequence b goes on after row `rows[b]` of it. All have unit stride in
    their last dimension.
    """
    count, heads, n_own, size = query.shape
    out = query.new_empty(count, n_own, heads, size)
    tensors = (query, key, value, prefix_keys, prefix_values)
    q, k, v, pk, pv = (tensor.stride()[:3] for tensor in tensors)
    _kernel[(count * heads, triton.cdiv(n_own, BLOCK))](
        *tensors, out if rows is None else rows, out,
        *q, *k, *v, *pk, *pv,
        n_own, prefix_keys.shape[2], heads, heads // key.shape[1],
        scale * 1.4426950408889634,  # exp(x) = 2 ** (x log2 e)
        has_rows=rows is not None, width=size, block=BLOCK, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


@attend_after.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_keys: Tensor,
    prefix_values: Tensor,
    rows: Tensor | None,
    scale: float,
) -> Tensor:
    count, heads, n_own, size = query.shape
    return query.new_empty(count, n_own, heads, size)
