"""Equilibrium k-means in plain NumPy: the specification with which the kernels are compared.

The code is written to be read, not to be fast. Every function works in the dtype of ``X``, also in
`numpy.longdouble`, so that tests can compute more digits than the kernels. With
:math:`d_{kn} = \\frac12 \\|x_n - c_k\\|^2`:

.. math::

    p_{kn} &= \\exp(-\\alpha d_{kn}) / \\sum_i \\exp(-\\alpha d_{in}), \\qquad
    E_n = \\sum_k p_{kn} d_{kn} \\
    w_{kn} &= p_{kn} (1 - \\alpha (d_{kn} - E_n))                       \\qquad\\text{(Eq. 38)} \\
    c_k &= \\sum_n s_n w_{kn} x_n / \\sum_n s_n w_{kn}                  \\qquad\\text{(Eq. 39)} \\
    J &= \\sum_n s_n E_n

At the end are the densities of mixtures of Student distributions, and the sums of one iteration of
their expectation maximization, whose formulas `ekmfast.fit.mixture` gives, and the likelihood of
rows and labels of `ekmfast.fit.likelihood`.

References
----------
.. [1] Y. He, "Imbalanced Data Clustering using Equilibrium K-Means", arXiv:2402.14490.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Array = npt.NDArray[np.floating[Any]]


def squared_distances(X: Array, centroids: Array) -> Array:
    """Return the squared distance of every sample to every centroid.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids, taken in the dtype of `X`.

    Returns
    -------
    ndarray of shape (n_samples, n_clusters)
        :math:`\\|x_n - c_k\\|^2`, computed from differences, so that no digits cancel.
    """
    distances = np.empty((len(X), len(centroids)), dtype=X.dtype)
    for k, centroid in enumerate(centroids.astype(X.dtype)):
        distances[:, k] = ((X - centroid) ** 2).sum(axis=1)
    return distances


def _exponents(X: Array, centroids: Array, alpha: float) -> Array:
    """Return :math:`-\\alpha (d_{kn} - \\min_i d_{in})`, whose largest value in every row is 0.

    The shift changes neither Eq. 38 nor the memberships, and it prevents that all exponentials of a
    row underflow.
    """
    d = squared_distances(X, centroids) / 2
    shifted: Array = -X.dtype.type(alpha) * (d - d.min(axis=1, keepdims=True))
    return shifted


def _log_memberships(exponents: Array) -> Array:
    log_p: Array = exponents - np.log(np.exp(exponents).sum(axis=1, keepdims=True))
    return log_p


def _tilt(exponents: Array) -> Array:
    """Return :math:`1 - \\alpha (d_{kn} - E_n)`, the factor of Eq. 38 that may be negative."""
    p = np.exp(_log_memberships(exponents))
    # Where p underflows to 0 the exponent may be -inf; its product with p must be 0.
    moments = p * np.where(p > 0, exponents, 0)
    tilt: Array = 1 + exponents - moments.sum(axis=1, keepdims=True)
    return tilt


def memberships(X: Array, centroids: Array, alpha: float) -> Array:
    """Return the Boltzmann memberships :math:`p_{kn}`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids.
    alpha : float
        Inverse temperature, for distances with the half.

    Returns
    -------
    ndarray of shape (n_samples, n_clusters)
        Memberships; rows sum to one.
    """
    p: Array = np.exp(_log_memberships(_exponents(X, centroids, alpha)))
    return p


def weights(X: Array, centroids: Array, alpha: float) -> Array:
    """Return the weights of Eq. 38, :math:`w_{kn} = p_{kn} (1 - \\alpha (d_{kn} - E_n))`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids.
    alpha : float
        Inverse temperature, for distances with the half.

    Returns
    -------
    ndarray of shape (n_samples, n_clusters)
        Weights; rows sum to one, entries may be negative.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast._reference import weights
    >>> weights(np.array([[0.0], [1.0]]), np.array([[0.5], [0.5]]), 2.0)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    exponents = _exponents(X, centroids, alpha)
    return np.exp(_log_memberships(exponents)) * _tilt(exponents)


def update(X: Array, weights: Array) -> Array:
    """Return the centroids of Eq. 39, :math:`c_k = \\sum_n w_{kn} x_n / \\sum_n w_{kn}`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    weights : ndarray of shape (n_samples, n_clusters)
        Weights, already multiplied by the sample weights.

    Returns
    -------
    ndarray of shape (n_clusters, n_features)
        Centroids.
    """
    centroids: Array = (weights.T @ X) / weights.sum(axis=0)[:, None]
    return centroids


def _ones_unless(sample_weight: Array | None, X: Array) -> Array:
    if sample_weight is None:
        return np.ones(len(X), dtype=X.dtype)
    return sample_weight.astype(X.dtype)


def statistics(
    X: Array, centroids: Array, alpha: float, sample_weight: Array | None = None
) -> tuple[Array, Array, Array, np.floating[Any]]:
    """Return the sums from which Eq. 39 and the objective are computed.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids.
    alpha : float
        Inverse temperature, for distances with the half.
    sample_weight : ndarray of shape (n_samples,), optional
        Weights :math:`s_n`; ones by default.

    Returns
    -------
    sum_wx : ndarray of shape (n_clusters, n_features)
        :math:`\\sum_n s_n w_{kn} x_n`.
    sum_w : ndarray of shape (n_clusters,)
        :math:`\\sum_n s_n w_{kn}`.
    sum_p : ndarray of shape (n_clusters,)
        :math:`\\sum_n s_n p_{kn}`.
    objective : floating
        :math:`J = \\sum_n s_n E_n`.
    """
    s = _ones_unless(sample_weight, X)[:, None]
    d = squared_distances(X, centroids) / 2
    p = memberships(X, centroids, alpha)
    sw = s * weights(X, centroids, alpha)
    return sw.T @ X, sw.sum(axis=0), (s * p).sum(axis=0), (s * p * d).sum()


def step(
    X: Array, centroids: Array, alpha: float, sample_weight: Array | None = None
) -> tuple[Array, np.floating[Any]]:
    """Return the next centroids (Eq. 38, then Eq. 39) and the objective at the given ones.

    The ratio of Eq. 39 does not change when all weights of a centroid are multiplied by a number.
    Therefore the weights of each centroid are divided by its largest membership. For a centroid
    that is far from every sample, the weights themselves would underflow and give 0 / 0.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples, at least one.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids.
    alpha : float
        Inverse temperature, for distances with the half.
    sample_weight : ndarray of shape (n_samples,), optional
        Weights :math:`s_n`; ones by default.

    Returns
    -------
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids after one step; a centroid whose weights sum to exactly zero is not changed.
    objective : floating
        :math:`J` at the given centroids.

    Examples
    --------
    The second centroid starts far away, and still moves to the small group:

    >>> import numpy as np
    >>> from ekmfast._reference import step
    >>> X = np.array([[100.0], [101.0], [102.0], [110.0], [111.0]])
    >>> step(X, np.array([[105.0], [1000.0]]), alpha=2.0)[0]
    array([[104.8],
           [111. ]])
    """
    s = _ones_unless(sample_weight, X)
    # A row of weight zero must not determine the scale of a column.
    X, s = X[s > 0], s[s > 0]
    d = squared_distances(X, centroids) / 2
    exponents = _exponents(X, centroids, alpha)
    log_p = _log_memberships(exponents)
    largest = log_p.max(axis=0)
    scaled_p = np.exp(log_p - np.where(np.isfinite(largest), largest, 0))
    scaled_w = s[:, None] * scaled_p * np.where(scaled_p > 0, _tilt(exponents), 0)
    stays = scaled_w.sum(axis=0) == 0
    scaled_w[:, stays] = 1  # avoids 0 / 0; the resulting ratio is not used
    new = np.where(stays[:, None], centroids.astype(X.dtype), update(X, scaled_w))
    p = np.exp(log_p)
    return new, (s[:, None] * p * np.where(p > 0, d, 0)).sum()


def naive_weights(X: Array, centroids: Array, alpha: float) -> Array:
    """Return Eq. 38 as public implementations compute it, to show how this fails.

    The exponents are not shifted, and 1e-8 is added to the denominators. If :math:`\\alpha d` is
    larger than about 18 for all centroids, the memberships of a row sum to nearly zero instead of
    one. Together with `naive_update`, every centroid then moves to the origin.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids.
    alpha : float
        Inverse temperature, for distances with the half.

    Returns
    -------
    ndarray of shape (n_samples, n_clusters)
        Weights, which are correct where nothing underflows.
    """
    d = squared_distances(X, centroids) / 2
    e = np.exp(-X.dtype.type(alpha) * d)
    total = e.sum(axis=1, keepdims=True) + X.dtype.type(1e-8)
    expected = (e * d).sum(axis=1, keepdims=True) / total
    w: Array = e / total * (1 - X.dtype.type(alpha) * (d - expected))
    return w


def naive_update(X: Array, weights: Array) -> Array:
    """Return Eq. 39 with 1e-8 in the denominator, the companion of `naive_weights`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    weights : ndarray of shape (n_samples, n_clusters)
        Weights.

    Returns
    -------
    ndarray of shape (n_clusters, n_features)
        Centroids, which are near the origin where the sum of the weights is much less than 1e-8.
    """
    centroids: Array = (weights.T @ X) / (weights.sum(axis=0)[:, None] + X.dtype.type(1e-8))
    return centroids


def mixture_distances(X: Array, means: Array, scatters: Array) -> Array:
    """Return the squared distances :math:`(x_n - m_k)^T S_k^{-1} (x_n - m_k)`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    means : ndarray of shape (n_components, n_features)
        Means :math:`m_k`.
    scatters : ndarray of shape (n_components, n_features, n_features) or as ``means``
        Scatter matrices :math:`S_k`, or their diagonals where all else is zero.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Squared distances.
    """
    distances = np.empty((len(X), len(means)))
    for k, (mean, scatter) in enumerate(zip(means, scatters, strict=True)):
        y = X - mean
        if scatter.ndim == 2:
            distances[:, k] = (np.linalg.solve(np.linalg.cholesky(scatter), y.T) ** 2).sum(axis=0)
        else:
            distances[:, k] = (y**2 / scatter).sum(axis=1)
    return distances


def mixture_log_joint(
    X: Array, weights: Array, means: Array, scatters: Array, degrees: float
) -> Array:
    """Return :math:`\\log \\pi_k f_k(x_n)` of a mixture of Student distributions.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    weights : ndarray of shape (n_components,)
        Shares :math:`\\pi_k`.
    means : ndarray of shape (n_components, n_features)
        Means.
    scatters : ndarray of shape (n_components, n_features, n_features) or as ``means``
        Scatter matrices, or their diagonals.
    degrees : float
        Degrees of freedom of all components; infinite for Gaussians.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Logarithms.
    """
    d, v = X.shape[1], degrees
    q = mixture_distances(X, means, scatters)
    if scatters.ndim == 3:
        log_determinants = np.array([np.linalg.slogdet(scatter)[1] for scatter in scatters])
    else:
        log_determinants = np.log(scatters).sum(axis=1)
    constants = np.log(weights) - log_determinants / 2
    joint: Array
    if np.isinf(v):
        joint = constants - d / 2 * np.log(2 * np.pi) - q / 2
    else:
        norm = gammaln((v + d) / 2) - gammaln(v / 2) - d / 2 * np.log(v * np.pi)
        joint = constants + norm - (v + d) / 2 * np.log1p(q / v)
    return joint


def mixture_sums(
    X: Array,
    s: Array,
    weights: Array,
    means: Array,
    scatters: Array,
    degrees: float,
    log_background: float = -np.inf,
) -> tuple[Array, Array, Array, Array, np.floating[Any], np.floating[Any], np.floating[Any]]:
    """Return the sums from which expectation maximization computes the next mixture.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    s : ndarray of shape (n_samples,)
        Weights of the samples.
    weights, means, scatters, degrees
        The mixture, as for `mixture_log_joint`.
    log_background : float, default=-inf
        :math:`\\log \\pi_0 f_0` of a component of constant density, which takes part in the sums
        and maxima over :math:`k` below; :math:`-\\infty` if there is none.

    Returns
    -------
    mass : ndarray of shape (n_components,)
        :math:`\\sum_n s_n r_{nk}`.
    weight : ndarray of shape (n_components,)
        :math:`\\sum_n s_n r_{nk} u_{nk}`.
    first : ndarray of shape (n_components, n_features)
        :math:`\\sum_n s_n r_{nk} u_{nk} (x_n - m_k)`.
    second : ndarray of the shape of ``scatters``
        :math:`\\sum_n s_n r_{nk} u_{nk} (x_n - m_k) (x_n - m_k)^T`, or its diagonals.
    background : floating
        :math:`\\sum_n s_n r_{n0}`.
    likelihood : floating
        :math:`\\sum_n s_n \\log \\sum_k \\pi_k f_k(x_n)`.
    classified : floating
        :math:`\\sum_n s_n \\max_k \\log \\pi_k f_k(x_n)`.
    """
    joint = mixture_log_joint(X, weights, means, scatters, degrees)
    largest = np.maximum(joint.max(axis=1), log_background)
    r = np.exp(joint - largest[:, None])
    beside = np.exp(log_background - largest)
    total = r.sum(axis=1) + beside
    density = largest + np.log(total)
    r *= (s / total)[:, None]
    u = np.ones_like(r)
    if not np.isinf(degrees):
        u = (degrees + X.shape[1]) / (degrees + mixture_distances(X, means, scatters))
    y = X[:, None] - means
    shape = "nk,nki,nkj->kij" if scatters.ndim == 3 else "nk,nki,nki->ki"
    return (
        r.sum(axis=0),
        (r * u).sum(axis=0),
        np.einsum("nk,nki->ki", r * u, y),
        np.einsum(shape, r * u, y, y),
        s @ (beside / total),
        s @ density,
        s @ largest,
    )


def mixture_step(
    sums: tuple[Array, Array, Array, Array, float],
    means: Array,
    scales: Array,
    kind: str,
    *,
    prior: float,
    scale_prior: float,
    least_share: float,
    least_scatter: float,
    most_background: float,
) -> tuple[Array, float, Array, Array, Array]:
    """Return the next mixture of one step of expectation maximization.

    Parameters
    ----------
    sums : tuple
        The first five of what `mixture_sums` returns.
    means : ndarray of shape (n_components, n_features)
        The means of the mixture before.
    scales : ndarray of shape (n_components,)
        Its scales.
    kind : {'spherical', 'diag', 'tied', 'full'}
        What scatter matrices have in common.
    prior, scale_prior, least_share, least_scatter, most_background
        The constants of `ekmfast.fit.mixture`: the numbers of rows as if by which scatter matrices
        and scales are shrunk, the least variance of the common scatter matrix in any direction, as
        a share of the mean variance and at all, and the largest share of the background.

    Returns
    -------
    weights, background, means, scatters, scales
        The parameters. Scatters of the kinds 'spherical' and 'diag' are (n_components, n_features).
    """
    mass, weight, first, second, beside = sums
    d = means.shape[1]
    full = kind in ("tied", "full")
    tiny = np.finfo(np.float64).tiny
    share = min(beside / (max(mass.sum(), tiny) + beside), most_background)
    weights = (1 - share) * mass / max(mass.sum(), tiny)
    shift = first / np.maximum(weight, tiny)[:, None]
    moments = []
    for of_one, size, moved in zip(second, weight, shift, strict=True):
        about_mean = (of_one if full else np.diag(of_one)) - size * np.outer(moved, moved)
        moments.append(about_mean if full else np.diag(np.maximum(np.diag(about_mean), 0)))
    common = sum(m / t for m, t in zip(moments, scales, strict=True)) / max(mass.sum(), tiny)
    low = least_share * np.trace(common) / d
    own, directions = np.linalg.eigh(common)
    variances = np.maximum(own, max(low, least_scatter))
    # How much of the matrix the common one holds itself: d if no variance is below that share.
    held = sum(max(v, 0) / low if v < low and low > 0 else 1 for v in own)
    raised = directions * (variances - own) @ directions.T
    common = directions * variances @ directions.T
    inverse = directions / variances @ directions.T
    relative = np.array([np.sum(m * inverse) for m in moments])
    scales = (relative + scale_prior * held) / (held * (mass + scale_prior))
    if kind == "tied":
        scales = np.ones_like(scales)
        scatters = np.array([common for _ in moments])
    else:
        scatters = np.array(
            [
                (m + prior * t * common) / (size + prior)
                for m, t, size in zip(moments, scales, mass, strict=True)
            ]
        )
        if full:  # all are raised as much as the smallest one is by the prior
            shares = prior / (mass.min() + prior) - prior / (mass + prior)
            scatters += (shares * scales)[:, None, None] * raised
    if not full:
        scatters = np.diagonal(scatters, axis1=1, axis2=2)
    if kind == "spherical":
        scatters = np.repeat(scatters.mean(axis=1, keepdims=True), d, axis=1)
    return weights, share, means + shift, scatters, scales


def classification_likelihood(
    X: Array,
    labels: npt.NDArray[np.integer[Any]],
    s: Array,
    *,
    tail: float,
    scale_prior: float,
    variance_prior: float,
    least_variance: float,
    reweightings: int,
) -> float:
    """Return the mean log likelihood of rows and labels, up to a constant.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    labels : ndarray of shape (n_samples,)
        Integers from 0 on.
    s : ndarray of shape (n_samples,)
        Weights of the samples, with mean 1.
    tail, scale_prior, variance_prior, least_variance, reweightings
        The constants of `ekmfast.fit.likelihood`.

    Returns
    -------
    float
        -inf if all samples have the same label.
    """
    clusters = np.flatnonzero(np.bincount(labels))
    if len(clusters) < 2:
        return -np.inf
    member = labels[:, None] == clusters  # (n_samples, n_clusters)
    size = s @ member
    d = X.shape[1]
    weight, scale = s, np.ones(len(clusters))
    for _ in range(reweightings):
        of_cluster = (weight[:, None] * member).T
        centres = of_cluster @ X / of_cluster.sum(axis=1, keepdims=True)
        squares = ((X[:, None] - centres) ** 2 * member[:, :, None]).sum(axis=1)
        scatter = of_cluster @ squares
        common = (scatter / scale[:, None]).sum(axis=0) / s.sum()
        least = max(least_variance * common.mean(), np.finfo(np.float64).tiny)
        common = np.maximum(common, least)
        scale = ((scatter / common).sum(axis=1) + scale_prior * d) / (d * (size + scale_prior))
        variances = scatter + variance_prior * scale[:, None] * common
        variances = np.maximum(variances / (size + variance_prior)[:, None], least)
        distance = (squares / (member @ variances)).sum(axis=1)
        weight = s * (tail + d) / (tail + distance)
    of_label = np.log(size / s.sum()) - 0.5 * np.log(variances).sum(axis=1)
    of_row = member @ of_label - 0.5 * (tail + d) * np.log1p(distance / tail)
    return float(s @ of_row / s.sum())


def halves_of_labels(
    X: Array,
    sample_weight: Array,
    labels: npt.NDArray[np.int32],
    n_clusters: int,
    *,
    farthest: float,
    least: int,
    prior: float,
    refined: int,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the rows drawn towards the mean of their label, and which half of it they are in.

    The rows of a label are split across their longest axis, at the threshold where two Gaussians
    describe the rows along it best, and iterations of hard k-means follow.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows.
    sample_weight : ndarray of shape (n_samples,)
        Their weights.
    labels : ndarray of shape (n_samples,)
        Numbers from 0 to ``n_clusters`` - 1.
    n_clusters : int
        How many labels there are.
    farthest : float
        Rows are drawn to so many times the median distance from the mean of their label, at most.
    least : int
        The least number of rows of a half.
    prior : float
        The number of rows as if by which the variances of halves are shrunk.
    refined : int
        The number of iterations of hard k-means, at most.

    Returns
    -------
    rows : ndarray of shape (n_samples, n_features)
        The rows, drawn.
    half : ndarray of shape (n_samples,)
        Whether each is in the second half; none is if its label cannot be split.
    """
    rows, half = X.copy(), np.zeros(len(X), bool)
    for label in range(n_clusters):
        own = np.flatnonzero(labels == label)
        s, total = sample_weight[own], sample_weight[own].sum()
        if total <= 0:
            continue
        Z = X[own] - s @ X[own] / total
        lengths = np.sqrt((Z**2).sum(axis=1))
        far = lengths > farthest * np.median(lengths)
        Z[far] *= (farthest * np.median(lengths) / lengths[far])[:, None]
        rows[own] = Z + s @ X[own] / total
        Z -= s @ Z / total
        if len(own) < 2 * least:
            continue
        axis = np.linalg.eigh((Z.T * s) @ Z)[1][:, -1]
        above = _above_threshold(Z @ axis, s, least, prior)
        for _ in range(refined):
            if not 0 < s[above].sum() < total:
                break
            one = s[above] @ Z[above] / s[above].sum()
            other = s[~above] @ Z[~above] / s[~above].sum()
            nearer = ((Z - one) ** 2).sum(axis=1) < ((Z - other) ** 2).sum(axis=1)
            if (nearer == above).all():
                break
            above = nearer
        if min(above.sum(), (~above).sum()) >= least:
            half[own] = above
    return rows, half


def _above_threshold(z: Array, s: Array, least: int, prior: float) -> npt.NDArray[np.bool_]:
    """Which values are above the threshold where two Gaussians describe them best."""
    best, found = -np.inf, np.zeros(len(z), bool)
    order = np.argsort(z, kind="stable")
    for i in range(least, len(z) - least + 1):
        sides = [order[:i], order[i:]]
        masses = [s[side].sum() for side in sides]
        squares = [
            s[side] @ (z[side] - s[side] @ z[side] / mass) ** 2
            for side, mass in zip(sides, masses, strict=True)
        ]
        within = prior * sum(squares) / s.sum()
        fit = sum(
            mass * np.log(mass) - mass / 2 * np.log((square + within) / (mass + prior))
            for mass, square in zip(masses, squares, strict=True)
        )
        if fit > best:
            best, found = fit, np.zeros(len(z), bool)
            found[sides[1]] = True
    return found
