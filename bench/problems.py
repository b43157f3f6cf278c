"""Random imbalanced clustering problems, which are determined by their seeds.

A problem has K clusters in D dimensions; the largest is up to 50 times as large as the smallest.
The random *separation* is the distance between a centre and its nearest neighbour, in standard
deviations of the two clusters along the line between them, averaged over the centres. By this
definition the overlap of neighbours does not depend on the dimension, nor on whether clusters are
round or long. `attainable_ari` is the ARI of the labels by the true densities, which shows how well
the classes can be separated at all.

Seeds 0 to 199 of each family are used for published results. Rules and constants are chosen on
seeds from TUNING_SEEDS on, which are never used for published results.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

Float64 = NDArray[np.float64]

FAMILIES = ("gaussian", "correlated", "heavy-tailed", "background")
PUBLISHED = 200
TUNING_SEEDS = 10_000

# Below 2 two clusters have one common mode; at 7 there is empty space between them.
SEPARATION = (1.5, 7.0)
LEAST_ROWS = 10  # least number of rows in a cluster
BACKGROUND = -1  # label of the rows of no cluster


def families() -> tuple[str, ...]:
    """Names of the families."""
    return FAMILIES


@dataclass(frozen=True)
class Densities:
    """Densities of the clusters, in the units of X: normal, or Student's t if `df` is finite."""

    centres: Float64  # (K, D)
    scatters: Float64  # (K, D, D)
    df: float

    def label(self, X: Float64, sizes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Label each row by the cluster with the largest product of density and size."""
        n_features = X.shape[1]
        score = np.empty((len(sizes), len(X)))
        for i, (centre, scatter) in enumerate(zip(self.centres, self.scatters, strict=True)):
            half = np.linalg.cholesky(scatter)
            m = (np.linalg.solve(half, (X - centre).T) ** 2).sum(axis=0)
            # Terms that are equal for all clusters are left out.
            score[i] = np.log(sizes[i]) - np.log(np.diag(half)).sum()
            if np.isinf(self.df):
                score[i] -= m / 2
            else:
                score[i] -= 0.5 * (self.df + n_features) * np.log1p(m / self.df)
        labels: NDArray[np.intp] = score.argmax(axis=0)
        return labels


@dataclass(frozen=True)
class Problem:
    """Rows, their classes, and the random parameters of the problem."""

    name: str
    X: Float64  # (N, D)
    y: NDArray[np.intp]  # (N,), class of each row from 0 on, BACKGROUND for none
    k: int
    facts: dict[str, Any] = field(repr=False, default_factory=dict)
    densities: Densities | None = field(repr=False, default=None)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask of the rows that belong to a class; the ARI uses only these."""
        mask: NDArray[np.bool_] = self.y != BACKGROUND
        return mask

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Number of rows in each class."""
        return np.bincount(self.y[self.mask], minlength=self.k)

    def ari(self, labels: NDArray[Any]) -> float:
        """Adjusted Rand index of ``labels`` over the rows that belong to a class."""
        if len(labels) != len(self.y):
            raise ValueError(f"labels has {len(labels)} entries, the problem {len(self.y)} rows")
        return float(adjusted_rand_score(self.y[self.mask], np.asarray(labels)[self.mask]))

    def attainable_ari(self) -> float:
        """ARI of the labels by the true densities and sizes, which is nearly the best possible."""
        if self.densities is None:
            raise ValueError(f"the densities of {self.name} are not known")
        return self.ari(self.densities.label(self.X, self.sizes))


def make_problem(
    family: str,
    seed: int,
    *,
    n_samples: int | None = None,
    n_clusters: int | None = None,
    n_features: int | None = None,
    imbalance: float | None = None,
) -> Problem:
    """Draw problem ``seed`` of a family. Given parameters replace random ones.

    - 'gaussian': clusters are spherical, or have different scales along the axes; their spreads
      differ.
    - 'correlated': each cluster has its own rotation and eccentricity.
    - 'heavy-tailed': clusters are multivariate Student t with 2.5 to 4 degrees of freedom, with
      scales as in 'gaussian'.
    - 'background': as 'gaussian', with 5 to 15 % of all rows uniform in the bounding box of the
      others.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {FAMILIES}, got {family!r}")
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    drawn = int(rng.integers(2, 11)), round(_log_uniform(rng, 2, 50))
    k, n_features = n_clusters or drawn[0], n_features or drawn[1]
    sizes = _sizes(rng, k, n_samples, imbalance)
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
        densities=Densities((centres - mean) / std, scatters / np.outer(std, std), df),
    )


def named_sets() -> list[Problem]:
    """Four imbalanced sets in the plane, and scikit-learn's sets; all but pixels are z-scored."""
    corners = ((2000, (-2, 2)), (50, (2, -2)), (200, (4, 4)))
    around = ((5, 5), (-5, 5), (-5, -5), (5, -5), (10, 0), (-10, 0), (0, 10), (0, -10))
    g = np.random.default_rng(0)
    a = np.vstack([g.standard_normal((q, 2)) + c for q, c in corners])
    g = np.random.default_rng(0)
    b = np.vstack([3.5 * g.random((q, 2)) + c for q, c in corners])
    g = np.random.default_rng(0)
    c = np.vstack(
        [g.standard_normal((5000, 2)), np.column_stack([3 + 5 * g.random(200), g.random(200)])]
    )
    g = np.random.default_rng(0)
    d = np.vstack(
        [3 * (g.random((5000, 2)) - 0.5), *(g.standard_normal((50, 2)) + c for c in around)]
    )
    sets = [
        _classes("A: three blobs", _z_scored(a), np.repeat([0, 1, 2], [2000, 50, 200])),
        _classes("B: three squares", _z_scored(b), np.repeat([0, 1, 2], [2000, 50, 200])),
        _classes("C: blob and bar", _z_scored(c), np.repeat([0, 1], [5000, 200])),
        _classes("D: square and eight blobs", _z_scored(d), np.repeat(range(9), [5000] + 8 * [50])),
    ]
    loaders = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}
    for name, load in loaders.items():
        X, y = load(return_X_y=True)
        sets.append(_classes(name, _z_scored(X), y))
    X, y = load_digits(return_X_y=True)
    rows = _thinned(y, np.rint(np.geomspace(170, 10, 10)))
    sets.append(_classes("digits, 170 to 10 a class", X[rows] / 16, y[rows]))
    rows = _thinned(y, [170, 80, 40, 20])
    varying = X[rows][:, X[rows].std(axis=0) > 0]
    few = PCA(10, svd_solver="full").fit_transform(_z_scored(varying))
    sets.append(_classes("digits 0 to 3, z-scored, 10 components", few, y[rows]))
    return sets


def _classes(name: str, X: Float64, y: NDArray[Any]) -> Problem:
    y = np.asarray(y, np.intp)
    sizes = np.bincount(y)
    facts = {
        "n": len(X),
        "k": len(sizes),
        "d": X.shape[1],
        "sizes": sizes.tolist(),
        "imbalance": float(sizes.max() / sizes.min()),
    }
    return Problem(name, np.ascontiguousarray(X), y, len(sizes), facts)


def _z_scored(X: Float64) -> Float64:
    scaled: Float64 = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    return scaled


def _thinned(y: NDArray[Any], sizes: Any) -> NDArray[np.intp]:
    """Draw ``sizes[i]`` random rows of each class i; rows keep their order in the set."""
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [
            rng.choice(np.flatnonzero(y == label), int(size), replace=False)
            for label, size in enumerate(sizes)
        ]
    )
    rows.sort()
    return rows


def _log_uniform(rng: np.random.Generator, low: float, high: float, size: Any = None) -> Any:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def _sizes(
    rng: np.random.Generator, k: int, n_samples: int | None, imbalance: float | None
) -> NDArray[np.intp]:
    """Number of rows in each cluster: a geometric sequence, or random between both ends."""
    drawn = _log_uniform(rng, 1, 50)
    imbalance = imbalance or drawn
    between = np.linspace(0, 1, k)
    if rng.random() < 0.5:
        between[1:-1] = rng.random(k - 2)
    share = imbalance**between
    drawn = _log_uniform(rng, 300, 3000)
    total = n_samples or drawn
    # With many clusters and a high imbalance, the total grows so that the smallest has LEAST_ROWS.
    sizes: NDArray[np.intp] = np.rint(share * max(total / share.sum(), LEAST_ROWS)).astype(np.intp)
    return sizes


def _scatter(rng: np.random.Generator, family: str, n_features: int) -> Float64:
    """Random scale matrix (D, D) of a cluster, with mean variance 1."""
    if family == "correlated":
        variance = _log_uniform(rng, 1, _log_uniform(rng, 1, 6), size=n_features) ** 2
        rotation = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]
        scatter = (rotation * variance) @ rotation.T
    else:
        variance = np.ones(n_features)
        if rng.random() < 0.5:
            variance = _log_uniform(rng, 0.5, 2, size=n_features) ** 2
        scatter = np.diag(variance)
    unit: Float64 = scatter / variance.mean()
    return unit


def _nearest(centres: Float64, scatters: Float64) -> Float64:
    """Distance of each centre to the nearest other, in standard deviations along their line."""
    line = centres[:, None] - centres[None]  # (K, K, D)
    length = np.linalg.norm(line, axis=2)
    np.fill_diagonal(length, np.inf)
    unit = line / length[..., None]
    variance = np.einsum("ijd,ide,ije->ij", unit, scatters, unit)
    variance = (variance + variance.T) / 2
    np.fill_diagonal(variance, 1.0)
    nearest: Float64 = (length / np.sqrt(variance)).min(axis=1)
    return nearest


def _rows(rng: np.random.Generator, size: int, scatter: Float64, df: float) -> Float64:
    rows = rng.standard_normal((size, len(scatter))) @ np.linalg.cholesky(scatter).T
    if np.isfinite(df):
        rows *= np.sqrt(df / rng.chisquare(df, (size, 1)))
    return rows
