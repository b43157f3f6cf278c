"""Clusters with ``alpha='auto'``: which search finds them in rows of which kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.directions import is_wide
from ekmfast.fit.likeliest import find_likeliest, search_rows
from ekmfast.fit.problem import Problem
from ekmfast.fit.wide import as_wide, find_in_directions, given_for_array

Float64 = NDArray[np.float64]


def find_clusters(
    problem: Problem,
    init: Any,
    n_init: int | str,
    random_state: np.random.RandomState,
    scale: float = 2.0,
) -> tuple[Float64, float]:
    """Centroids (K, D) from which a fit to all rows can begin, and alpha.

    ``init``, ``n_init`` and ``scale`` are those of `EKMeans`.
    """
    given = init, n_init, random_state
    if is_wide(problem.survey.sample.X):
        found = find_in_directions(problem, *given, scale)
        if found is not None:
            return found
    dvariance = resolve_alpha("dvariance", scale, problem.dispersion)
    sketch = problem.sketch(search_rows(problem.n_clusters), random_state)
    wide = as_wide(sketch)
    if wide is not None and wide is not sketch:  # an array of mostly zeros
        of_array = given_for_array(sketch, *given)
        found = find_in_directions(wide, *of_array, random_state, scale)
        if found is not None:
            return found
    return find_likeliest(sketch, *given, dvariance)
