"""Random imbalanced clustering problems: the same seed gives the same problem, for every method.

A problem is K clusters in D dimensions, the largest up to 50 times the smallest. What is drawn as
the *separation* is the distance from a centre to its nearest other one, in standard deviations of
the two clusters along the line between them, averaged over the centres: the overlap of neighbours
then means the same in 2 dimensions and in 50, for round clusters and for long ones. `overlap`
tells how well the clusters can be told apart at all: it labels the rows by their true densities.

Seeds 0 .. 199 of each family are for publication; rules and constants are chosen on seeds from
TUNING_SEEDS on, which publication never sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from sklearn.metrics import adjusted_rand_score

Float64 = NDArray[np.float64]

FAMILIES = ("gaussian", "correlated", "heavy-tailed", "background")
PUBLISHED = 200
TUNING_SEEDS = 10_000

SEPARATION = (1.5, 5.0)
LEAST_ROWS = 10  # of a cluster
BACKGROUND = -1  # label of the rows of no cluster


def families() -> tuple[str, ...]:
    """Names of the families."""
    return FAMILIES


@dataclass(frozen=True)
class Problem:
    """Rows, the clusters they were drawn from, and what was drawn to make them."""

    name: str
    X: Float64  # (N, D), z-scored
    y: NDArray[np.intp]  # (N,), cluster of each row, BACKGROUND for none
    k: int
    facts: dict[str, Any] = field(repr=False)
    # Centres, scale matrices and degrees of freedom, in the units of X.
    centres: Float64 = field(repr=False)
    scatters: Float64 = field(repr=False)
    df: float = field(repr=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Rows that belong to a cluster, on which alone a result is judged."""
        return self.y != BACKGROUND

    def ari(self, labels: NDArray[Any]) -> float:
        """Adjusted Rand index of ``labels`` over the rows that belong to a cluster."""
        if len(labels) != len(self.y):
            raise ValueError(f"labels has {len(labels)} entries, the problem {len(self.y)} rows")
        return float(adjusted_rand_score(self.y[self.mask], np.asarray(labels)[self.mask]))

    def overlap(self) -> float:
        """ARI of the labels that the true densities and sizes give: about the best there is."""
        n_features = self.X.shape[1]
        log_density = np.empty((self.k, len(self.X)))
        for i, (centre, scatter) in enumerate(zip(self.centres, self.scatters, strict=True)):
            half = np.linalg.cholesky(scatter)
            m = (np.linalg.solve(half, (self.X - centre).T) ** 2).sum(axis=0)
            log_density[i] = np.log(np.count_nonzero(self.y == i))
            log_density[i] -= np.log(np.diag(half)).sum()
            if np.isinf(self.df):
                log_density[i] -= m / 2
            else:
                log_density[i] -= 0.5 * (self.df + n_features) * np.log1p(m / self.df)
                log_density[i] += gammaln((self.df + n_features) / 2) - gammaln(self.df / 2)
        return self.ari(log_density.argmax(axis=0))


def make_problem(family: str, seed: int) -> Problem:
    """Draw problem ``seed`` of a family.

    - 'gaussian': spherical, or with their own scale along each axis; of different spread.
    - 'correlated': each with its own rotation and eccentricity.
    - 'heavy-tailed': multivariate Student t, 2.5 to 4 degrees of freedom, scaled along the axes.
    - 'background': as 'gaussian', and 5 to 15 % of all rows uniform in the box of the others.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {FAMILIES}, got {family!r}")
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    k = int(rng.integers(2, 11))
    n_features = round(_log_uniform(rng, 2, 50))
    sizes = _sizes(rng, k)
    spread = _log_uniform(rng, 0.6, 1.6, size=k)
    scatters = np.stack([_scatter(rng, family, n_features) for _ in range(k)])
    scatters *= spread[:, None, None] ** 2
    if rng.random() < 0.5:
        directions = rng.standard_normal((k, n_features))
    else:
        directions = rng.uniform(-1, 1, (k, n_features))
    separation = float(rng.uniform(*SEPARATION))
    centres = directions * (separation / _nearest(directions, scatters).mean())
    df = float(rng.uniform(2.5, 4.0)) if family == "heavy-tailed" else np.inf

    y = np.repeat(np.arange(k), sizes)
    X = np.concatenate(
        [centres[i] + _rows(rng, size, scatters[i], df) for i, size in enumerate(sizes)]
    )
    share = 0.0
    if family == "background":
        share = float(rng.uniform(0.05, 0.15))
        n = round(len(X) * share / (1 - share))
        X = np.concatenate([X, rng.uniform(X.min(axis=0), X.max(axis=0), (n, n_features))])
        y = np.concatenate([y, np.full(n, BACKGROUND)])
    order = rng.permutation(len(X))
    X, y = X[order], y[order]
    mean, std = X.mean(axis=0), X.std(axis=0)
    return Problem(
        name=f"{family}-{seed}",
        X=np.ascontiguousarray((X - mean) / std),
        y=y,
        k=k,
        facts={
            "n": len(X),
            "k": k,
            "d": n_features,
            "sizes": sizes.tolist(),
            "imbalance": float(sizes.max() / sizes.min()),
            "separation": separation,
            "background": share,
            "df": df if np.isfinite(df) else None,
        },
        centres=(centres - mean) / std,
        scatters=scatters / np.outer(std, std),
        df=df,
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float, size: Any = None) -> Any:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def _sizes(rng: np.random.Generator, k: int) -> NDArray[np.intp]:
    """Rows of each cluster: geometric from the smallest to the largest, or random in between."""
    imbalance = _log_uniform(rng, 1, 50)
    between = np.linspace(0, 1, k)
    if rng.random() < 0.5:
        between[1:-1] = rng.random(k - 2)
    share = imbalance**between
    total = _log_uniform(rng, 300, 3000)
    # Many clusters of high imbalance need more rows for the smallest to be one at all.
    return np.rint(share * max(total / share.sum(), LEAST_ROWS)).astype(np.intp)


def _scatter(rng: np.random.Generator, family: str, n_features: int) -> Float64:
    """Shape of one cluster, of unit mean variance: a scale matrix (D, D)."""
    if family == "correlated":
        variance = _log_uniform(rng, 1, _log_uniform(rng, 1, 6), size=n_features) ** 2
        rotation = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]
        scatter = (rotation * variance) @ rotation.T
    else:
        variance = np.ones(n_features)
        if rng.random() < 0.5:
            variance = _log_uniform(rng, 0.5, 2, size=n_features) ** 2
        scatter = np.diag(variance)
    return scatter / variance.mean()


def _nearest(centres: Float64, scatters: Float64) -> Float64:
    """Distance of each centre to the nearest other, in deviations along the line between them."""
    line = centres[:, None] - centres[None]  # (K, K, D)
    length = np.linalg.norm(line, axis=2)
    np.fill_diagonal(length, np.inf)
    unit = line / length[..., None]
    variance = np.einsum("ijd,ide,ije->ij", unit, scatters, unit)
    variance = (variance + variance.T) / 2
    np.fill_diagonal(variance, 1.0)
    return (length / np.sqrt(variance)).min(axis=1)


def _rows(rng: np.random.Generator, size: int, scatter: Float64, df: float) -> Float64:
    rows = rng.standard_normal((size, len(scatter))) @ np.linalg.cholesky(scatter).T
    if np.isfinite(df):
        rows *= np.sqrt(df / rng.chisquare(df, (size, 1)))
    return rows
