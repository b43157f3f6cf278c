"""The clusters of the same rows for 1, 2, 3 ... of them, where features are strongly correlated.

They are those that `EKMeans` finds (`correlated`), with fewer restarts and without its last passes
in all features. What does not depend on the number is computed once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.correlated import find_in_components
from ekmfast.fit.evidence import Components
from ekmfast.fit.likeliest import in_float32, rows_of_runs
from ekmfast.fit.merging import merge_all
from ekmfast.fit.mixture.shapes import compact
from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import AUTO_RULES, initial_centroids


class Clusterings:
    """The clusters of a problem's rows, for any number of them.

    Parameters
    ----------
    problem : Problem
        Its rows are in memory. Its own number of clusters does not matter.
    components : Components
        Their principal components.
    random_state : RandomState
    n_init : int
        Restarts at each alpha.
    """

    def __init__(
        self,
        problem: Problem,
        components: Components,
        random_state: np.random.RandomState,
        n_init: int,
    ) -> None:
        self._problem, centre = in_float32(problem)
        self._components = Components(
            components.mean - centre, components.directions, components.held
        )
        self._dvariance = resolve_alpha("dvariance", 2.0, problem.dispersion)
        self._random_state, self._n_init = random_state, n_init

    def labels(self, k: int) -> NDArray[np.intp]:
        """Labels 0, 1, 2 ... of the rows in k clusters, or in fewer if centroids coincide."""
        problem: Any = self._problem.with_clusters(k)
        rows = problem.survey.sample.on_host()
        if k == 1 or rows.n_rows <= k or problem.dispersion == 0:
            return np.zeros(rows.n_rows, np.intp)
        draw = partial(
            initial_centroids,
            n_clusters=k,
            init="auto",
            n_init=self._n_init,
            random_state=self._random_state,
            rules=AUTO_RULES,
        )
        found, alpha = find_in_components(
            problem,
            self._components,
            self._dvariance,
            rows_of_runs(k),
            draw,
            None,
            self._random_state,
        )
        if problem.rows.space == "unit":
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        return compact(rows.label(found, merge_all(found[None], np.array([alpha]))[0]))
