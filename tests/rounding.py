"""How far two right answers may lie apart: what rounding alone can do."""

import numpy as np


def float32_error(terms: int, size: float = 1.0) -> float:
    """Bound the rounding error of a sum of `terms` float32 numbers, `size` in all.

    That is terms * eps * size; what is computed in another order, in other batches or
    by other kernels differs by no more than twice as much.
    """
    return 2 * terms * float(np.finfo(np.float32).eps) * size
