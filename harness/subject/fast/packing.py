"""Rows that read different numbers of tokens, put one after another without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.subject.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the own tokens of B rows of equal length lie among T packed ones.

    Row b has read its first `starts[b]` tokens elsewhere; the others are its own.
    """

    whole: int
    """Tokens of a row, own or not."""
    starts: Tensor
    """[B], int32."""
    first: Tensor
    """[B], int32: where each row's own tokens begin."""
    rows: Tensor
    """[T]: which row each packed token belongs to."""
    positions: Tensor
    """[T]: which token of its row each one is."""

    @classmethod
    def of(cls, ids: Tensor, starts: Sequence[int]) -> Packing:
        """Pack rows of ids [B, L]. Nothing waits for the device."""
        count, whole = ids.shape
        lengths = whole - np.array(starts)
        total = int(lengths.sum())
        [own] = sent(ids.device, lengths)
        first = own.cumsum(0) - own
        each = torch.arange(count, device=ids.device)
        rows = each.repeat_interleave(own, output_size=total)
        offsets = whole - own - first
        positions = torch.arange(total, device=ids.device) + offsets[rows]
        return cls(whole, (whole - own).int(), first.int(), rows, positions)

    @classmethod
    def entire(cls, ids: Tensor) -> Packing:
        """Pack rows of ids [B, L] of which nothing was read elsewhere."""
        count, whole = ids.shape
        at = torch.arange(count * whole, device=ids.device)
        first = at[::whole].int()
        return cls(whole, torch.zeros_like(first), first, at // whole, at % whole)

    def packed(self, ids: Tensor) -> Tensor:
        """Return the rows' own tokens [1, T] of ids [B, L]."""
        return ids[self.rows, self.positions][None]

    def last(self, states: Tensor, count: int) -> Tensor:
        """Return the last `count` states [B, count, d] of each row, of [1, T, d]."""
        ends = self.first + self.whole - self.starts
        near = torch.arange(-count, 0, device=states.device)
        return states[0, ends[:, None] + near]
