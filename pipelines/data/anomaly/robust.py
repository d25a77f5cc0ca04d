"""Distances from what is usual, in units that a few wild values do not move."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MATCHED = 200
"""Rows of like size that a row is compared with, at least."""
BINS = 50
"""Classes of size, at most."""
_NORMAL = 1.4826
"""Times the median absolute deviation: the standard deviation, were the values normal (Hampel 1974)."""


def robust_z(
    values: "NDArray[Any]", population: "NDArray[np.int64]", least_scale: float = 1e-6
) -> "NDArray[np.float64]":
    """Each value's distance from the median of `population` (rows), over 1.4826 times the median absolute deviation.

    The scale is never below `least_scale`: where more than half of the values are equal, the deviation is 0.
    Values that are NaN get 0.
    """
    import numpy as np

    of = values[population]
    of = of[~np.isnan(of)]
    if not len(of):
        return np.zeros(len(values))
    median = np.median(of)
    scale = max(_NORMAL * float(np.median(np.abs(of - median))), least_scale)
    z: NDArray[np.float64] = np.nan_to_num((values - median) / scale)
    return z


def matched_z(
    values: "NDArray[Any]", size: "NDArray[Any]", population: "NDArray[np.int64]", least_scale: float = 1e-6
) -> "NDArray[np.float64]":
    """`robust_z` among rows of like size: at most BINS classes of `size` with at least MATCHED of `population` each."""
    import numpy as np

    bins = max(1, min(BINS, len(population) // MATCHED))
    edges = np.unique(np.quantile(size[population], np.arange(1, bins) / bins)) if bins > 1 else np.zeros(0)
    bin_of = np.searchsorted(edges, size, side="left")
    z = np.zeros(len(values))
    for one in range(len(edges) + 1):
        rows = np.flatnonzero(bin_of == one)
        among = np.flatnonzero(bin_of[population] == one)
        if len(rows) and len(among):
            inside = np.concatenate((values[rows], values[population[among]]))
            # The rows that are judged stand first, those that they are judged by after them.
            z[rows] = robust_z(inside, np.arange(len(rows), len(inside)), least_scale)[: len(rows)]
    return z
