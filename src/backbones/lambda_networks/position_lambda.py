"""What queries read of values through embeddings of relative positions, in the cheaper of two exact orders.

    y[b,h,v,n] = sum over k, u, m of  q[b,h,k,n] E[k,u,m-n] V[b,v,u,m]          (LambdaNetworks, section 2)

`scores_first` makes scores first (q E, then V), for any number of axes; `lambdas_first` makes lambdas first (E V,
then q), for pictures, whose columns it takes apart into frequencies. The multiply-adds of the first grow with the
square of the number of pixels, those of the second with its power of one and a half.
"""

from __future__ import annotations

from torch import Tensor

from . import lambdas_first, scores_first

# Measured on a CPU, a product takes about as long in either order; rows must save some, as they keep more memory
ROWS_COST = 1.3


def read_positions(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """Position lambdas applied: queries (B, h, k, *n), table (k, u, *r), values (B, v, u, *m) to (B, h, v, *n).

    table: one embedding per relative position, key minus query, the middle one for 0. What lies beyond it is not read:
    r = 2 L - 1 reads everything on grids up to L, a smaller r the neighbourhood of each query. r is odd on every axis.
    """
    tiling = scores_first.tiling(queries, table, values)
    # a GPU's matrix units were not measured: there, scores
    if queries.dim() == 5 and queries.device.type == "cpu":
        tiles = scores_first.multiply_adds(queries, table, values, tiling)
        if ROWS_COST * lambdas_first.multiply_adds(queries, table, values) < tiles:
            return lambdas_first.read(queries, table, values)
    return scores_first.read(queries, table, values, tiling)
