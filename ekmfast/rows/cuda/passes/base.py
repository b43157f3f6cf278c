"""What all passes over one data set share."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

from ekmfast.rows.cuda.kernels import EQUILIBRIUM, FUZZY, HARD, MAXIMUM_ENTROPY
from ekmfast.rows.cuda.memory import Held
from ekmfast.rows.cuda.passes.kept import Kept
from ekmfast.rows.cuda.passes.survey import find_reference
from ekmfast.rows.cuda.product import Product, choose_product

WEIGHTINGS = {
    "equilibrium": EQUILIBRIUM,
    "maximum-entropy": MAXIMUM_ENTROPY,
    "hard": HARD,
    "fuzzy": FUZZY,
}


class Passes:
    """Rows, how they are weighted, and what is kept from one pass to the next.

    Parameters
    ----------
    held : Held
        The rows and their weights.
    weighting : {'equilibrium', 'maximum-entropy', 'fuzzy', 'hard'}
        How the weights w_kn of the sums are defined: see ``csrc/weighting.h``.
    fuzzifier : float > 1
        The exponent m of ``'fuzzy'``.
    product : Product, default=None
        What computes matrix products; None for `choose_product`.
    """

    def __init__(
        self,
        held: Held,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
        product: Product | None = None,
    ) -> None:
        self.held = held
        self.weighting = weighting
        self.fuzzifier = fuzzifier
        self.product = product or choose_product()
        self.reference = find_reference(held)
        self.kept = Kept(held.steady)
        self._total_weight: float | None = None

    def with_weighting(self, weighting: str) -> Self:
        other = copy(self)
        other.weighting = weighting
        other.kept = Kept(self.held.steady)
        return other

    @property
    def kind(self) -> int:
        """The number by which kernels know the weighting."""
        return WEIGHTINGS[self.weighting]

    def power(self, dtype: Any) -> Any:
        """The exponent 1 / (m - 1) of ratios of squared distances, in the dtype of a kernel."""
        return dtype(1 / (self.fuzzifier - 1))

    @property
    def total_weight(self) -> float:
        if self._total_weight is None:
            self._total_weight = self.held.total_weight()
        return self._total_weight
