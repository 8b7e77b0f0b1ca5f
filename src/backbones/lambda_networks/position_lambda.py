"""Position lambdas, computed in whichever of two exact orders is cheaper.

    y[b,h,v,n] = sum over k, u, m of  q[b,h,k,n] E[k,u,m-n] V[b,v,u,m]          (LambdaNetworks, section 2)

`scores_first` multiplies q E first, then V, on any number of axes. `lambdas_first` multiplies E V first, then q, on 2-D
grids, using a Fourier transform over the rows. The first takes O(P^2) multiply-adds for P pixels, the second O(P^1.5).
"""

from __future__ import annotations

from torch import Tensor

from . import lambdas_first, scores_first

# Products take about equally long in both orders on a CPU, but `lambdas_first` keeps more memory, so it must save some
LAMBDAS_FIRST_COST = 1.3


def apply_position_lambdas(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """Applies the position lambdas to the queries.

    Args:
        queries: (B, h, k, *n).
        table: (k, u, *r), one embedding per relative position, key minus query, with 0 in the middle; r is odd on every
            axis. Relative positions outside the table are ignored: r = 2 L - 1 covers all pairs on grids up to L, a
            smaller r covers the neighbourhood of each query.
        values: (B, v, u, *m).

    Returns:
        (B, h, v, *n).
    """
    tiling = scores_first.make_tiling(queries, table, values)
    # only measured on CPUs: other devices use scores_first
    if queries.dim() == 5 and queries.device.type == "cpu":
        cost = LAMBDAS_FIRST_COST * lambdas_first.multiply_adds(queries, table, values)
        if cost < scores_first.multiply_adds(queries, values, tiling):
            return lambdas_first.apply_lambdas_first(queries, table, values)
    return scores_first.apply_scores_first(queries, table, values, tiling)
