"""scikit-learn's rule for column names, for rows that it does not know: blocks, Dask frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

# Names of a list that an error shows.
SHOWN = 5


def check_names(names: Sequence[str] | None, fitted: Sequence[str] | None, estimator: str) -> None:
    """Refuse other names than those of the fit, and warn where one of both has none.

    The messages are scikit-learn's, so that frames and blocks of them are told the same.
    """
    if names is None and fitted is None:
        return
    if fitted is None:
        warnings.warn(
            f"X has feature names, but {estimator} was fitted without feature names", stacklevel=4
        )
        return
    if names is None:
        warnings.warn(
            f"X does not have valid feature names, but {estimator} was fitted with feature names",
            stacklevel=4,
        )
        return
    if list(names) == list(fitted):
        return
    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    if unseen:
        message += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        message += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def _listed(names: Sequence[str]) -> str:
    lines = [f"- {name}\n" for name in names[:SHOWN]]
    return "".join(lines + ["- ...\n"] * (len(names) > SHOWN))
