"""Progress of a fit: printed lines, and the callbacks of scikit-learn 1.9 and later."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.solver import Runs

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An empty base class for versions of scikit-learn that have no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Call the method, with one more stack frame, as scikit-learn's decorator has."""

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call


Float64 = NDArray[np.float64]

__all__ = ["CallbackSupportMixin", "Progress", "with_callbacks"]


class Progress:
    """Called by the solver after each pass: prints a line and calls the estimator's callbacks.

    The callbacks see each pass as a task. A callback that asks for a fitted estimator gets a copy
    with the best centroids so far. A callback that returns True stops the fit.
    """

    def __init__(self, estimator: Any, X: Any, dtype: Any, verbose: int) -> None:
        self.estimator, self.X, self.dtype, self.verbose = estimator, X, dtype, verbose
        self.n_passes = 0
        self.stopped = False
        self.cut_short = False  # a part of the fit before its last one was stopped
        self.context: Any = None
        if hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx"):
            self.context = estimator._init_callback_context(max_subtasks=None)
            self.context.call_on_fit_task_begin(estimator=estimator, X=X)

    @property
    def report(self) -> Progress | None:
        """What the solver is to call: nothing if nobody wants to know of its passes."""
        return self if self.verbose or self.context is not None else None

    def __call__(self, runs: Runs) -> bool:
        """Report one pass; return True if the fit is to stop."""
        self.n_passes += 1
        best = int(runs.objectives.argmin())
        objective = float(runs.objectives[best])
        if self.verbose:
            print(
                f"pass {self.n_passes}: best objective {objective:.8g}, "
                f"{runs.n_going} of {len(runs)} runs going"
            )
        return self._task("pass", objective, *runs.position(best))

    def epoch(
        self, number: int, objective: float, moved: float, centroids: Float64, alpha: float
    ) -> bool:
        """Report one epoch of batches; return True if the fit is to stop."""
        if self.verbose:
            print(f"epoch {number}: objective about {objective:.8g}, moved by {moved:.3g}")
        return self._task("epoch", objective, centroids, alpha)

    def _task(self, name: str, objective: float, centroids: Float64, alpha: float) -> bool:
        self.cut_short = self.stopped
        if self.context is not None:
            task = self.context.subcontext(task_name=name)
            task.call_on_fit_task_begin(estimator=self.estimator, X=self.X)
            self.stopped |= task.call_on_fit_task_end(
                estimator=self.estimator,
                X=self.X,
                metadata={"objective": objective},
                reconstruction_attributes=lambda: {
                    "cluster_centers_": centroids.astype(self.dtype),
                    "alpha_": alpha,
                    "_merged_": np.arange(len(centroids)),
                },
            )
        return self.stopped

    def end(self) -> None:
        """Tell the callbacks that the fit has ended."""
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.estimator, X=self.X)
