"""SemiSupervisedEKMeans: what labels do, the formulas, invariances and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from data import set_a, set_c
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from ekmfast import EKMeans, SemiSupervisedEKMeans
from ekmfast._reference import memberships, weights
from ekmfast.fit.problem import Problem
from ekmfast.fit.supervision import SupervisedSums, starts_with_labels, supervise
from ekmfast.rows.array import ArrayRows


def partly(y, share, seed):
    """y with all labels but ``share`` of each class, and no fewer than one, set to -1."""
    g = np.random.default_rng(seed)
    known = np.full(len(y), -1)
    for k in np.unique(y):
        rows = np.flatnonzero(y == k)
        known[g.choice(rows, max(1, round(share * len(rows))), replace=False)] = k
    return known


def overlapping(seed):
    """Four correlated clusters of very different sizes that overlap."""
    g = np.random.default_rng(seed)
    sizes = (1500, 300, 120, 60)
    parts = [
        g.standard_normal((n, 4)) @ (g.standard_normal((4, 4)) / 2) + 1.8 * g.standard_normal(4)
        for n in sizes
    ]
    X = np.vstack(parts)
    return (X - X.mean(axis=0)) / X.std(axis=0), np.repeat(np.arange(4), sizes)


class Unlabelled(SemiSupervisedEKMeans):
    """Takes no labels: the checks pass any classes as y."""

    def fit(self, X, y=None, sample_weight=None, *, prior=None):
        return super().fit(X, None, sample_weight, prior=prior)


DRAWS = (
    "restarts are drawn at random from the rows, so repeating rows changes the draw, as for "
    "KMeans; with labels for each cluster they agree (test_weight_two_is_the_row_twice)"
)
MORE_CLASSES = (
    "y holds cluster ids here, and the check passes more classes than the n_clusters it sets; "
    "without y the check passes (Unlabelled)"
)


# The checks' tiny data lets centroids coincide, and the estimator says so with a warning.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (Unlabelled(), {}),
        (
            SemiSupervisedEKMeans(),
            dict.fromkeys(
                (
                    "check_dont_overwrite_parameters",
                    "check_methods_sample_order_invariance",
                    "check_methods_subset_invariance",
                    "check_fit2d_1sample",
                    "check_fit2d_1feature",
                    "check_fit2d_predict1d",
                ),
                MORE_CLASSES,
            ),
        ),
    ],
    ids=["unlabelled", "labelled"],
)
def test_check_estimator(estimator, expected):
    results = check_estimator(
        estimator,
        on_skip=None,
        expected_failed_checks={
            **expected,
            "check_sample_weight_equivalence_on_dense_data": DRAWS,
            "check_sample_weight_equivalence_on_sparse_data": DRAWS,
        },
    )
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # runs only where SCIPY_ARRAY_API is set
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert set(expected) <= failed


def test_five_percent_of_labels_help():
    gains = []
    for seed in range(6):
        X, y = overlapping(seed)
        known = partly(y, 0.05, seed)
        rest = known < 0
        told = SemiSupervisedEKMeans(4).fit(X, known)
        untold = SemiSupervisedEKMeans(4, random_state=seed).fit(X)
        with threadpool_limits(1):  # on few rows OpenMP's threads but wait for each other
            hard = KMeans(4, n_init=10, random_state=seed).fit(X)
        ari = [adjusted_rand_score(y[rest], m.labels_[rest]) for m in (told, untold, hard)]
        # Labels are ids too: the share of rows in their own class, chance being about 1 / 4.
        assert np.mean(told.labels_[rest] == y[rest]) > 0.6
        gains.append((ari[0] - ari[1], ari[0] - ari[2]))
    assert np.min(gains) > 0
    assert np.mean(gains, axis=0).min() > 0.2


@pytest.mark.parametrize("share", [0.001, 0.02, 1.0])
def test_labels_do_no_harm_where_clusters_are_plain(share):
    for data, k in ((set_a, 3), (set_c, 2)):
        X, y = data()
        model = SemiSupervisedEKMeans(k, alpha=1.0).fit(X, partly(y, share, 0))
        assert adjusted_rand_score(y, model.labels_) > 0.95


@pytest.mark.parametrize("ids", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_cluster_ids_are_the_label_ids(ids):
    X, y = set_a()
    known = partly(y, 0.02, 0)
    plain = SemiSupervisedEKMeans(3, alpha=1.0).fit(X, known)
    y, known = np.array(ids)[y], np.where(known < 0, -1, np.array(ids)[known])
    model = SemiSupervisedEKMeans(3, alpha=1.0).fit(X, known)
    assert np.mean(model.labels_ == y) > 0.98
    assert np.mean(model.predict(X) == y) > 0.98
    np.testing.assert_allclose(model.cluster_centers_[list(ids)], plain.cluster_centers_, atol=1e-9)


@pytest.mark.parametrize("init", ["auto", "k-means++", "farthest"])
def test_clusters_without_labels_are_found_among_the_rest(init):
    X, y = set_a()
    known = np.where(y == 0, partly(y, 0.02, 0), -1)
    known[y == 0] = np.where(known[y == 0] == 0, 2, -1)  # the big cluster is class 2 of 3
    model = SemiSupervisedEKMeans(3, alpha=1.0, init=init, n_init=10, random_state=0)
    model.fit(X, known)
    assert np.mean(model.labels_[y == 0] == 2) > 0.98
    assert adjusted_rand_score(y, model.labels_) > 0.95


def blended_step(X, known, centroids, alpha, theta):
    """Weights, centroids and objective from the definitions, row by row."""
    C = np.asarray(centroids)
    F = np.zeros((len(X), len(C)))
    F[known >= 0, known[known >= 0]] = 1
    b = F.sum(axis=1, keepdims=True)
    w = weights(X, C, alpha)
    w = w + theta * (F - b * w)
    d = 0.5 * ((X[:, None] - C) ** 2).sum(axis=2)
    p = memberships(X, C, alpha)
    return (w.T @ X) / w.sum(axis=0)[:, None], np.sum((p + theta * (F - b * p)) * d)


@pytest.mark.parametrize("theta", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_one_step_is_the_definition(theta, offset):
    X, y = overlapping(0)
    X = X + offset
    known = partly(y, 0.1, 1)
    alpha = 0.8
    C = X[[0, 1600, 1850, 1950]]
    entries = (np.ones((known >= 0).sum()), (np.flatnonzero(known >= 0), known[known >= 0]))
    rows = ArrayRows(X)
    given = supervise(rows, csr_matrix(entries, shape=(len(X), 4)))
    sums = SupervisedSums(rows, given, theta).statistics(C[None], np.array([alpha]))
    # The definition is evaluated about the offset: it has no reference point of its own.
    step, objective = blended_step(X - offset, known, C - offset, alpha, theta)
    np.testing.assert_allclose(sums.ratio(C[None])[0] - offset, step, atol=1e-7)
    assert sums.objective[0] == pytest.approx(objective, rel=1e-9)
    assert (sums.exponent == 0).all()


def test_class_far_from_its_centroid_comes_back():
    """Every membership of the second centroid underflows; what its label says does not."""
    X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    model = SemiSupervisedEKMeans(2, alpha=1.0, init=[[1.0], [1e4]])
    for theta in (0.5, 1.0, 3.0):
        model.set_params(theta=theta).fit(X, [0, -1, -1, 1, -1])
        np.testing.assert_array_equal(model.labels_, [0, 0, 0, 1, 1])
        # Without a label of its own the exact ratio leads back.
        model.fit(X, [0, -1, -1, -1, -1])
        np.testing.assert_array_equal(model.labels_, [0, 0, 0, 1, 1])


def test_theta_zero_is_ekmeans_from_the_class_means():
    X, y = set_a()
    known = partly(y, 0.02, 0)
    means = np.array([X[known == k].mean(axis=0) for k in range(3)])
    plain = EKMeans(3, alpha=1.0, init=means, tol=1e-8).fit(X)
    zero = SemiSupervisedEKMeans(3, alpha=1.0, theta=0, tol=1e-8).fit(X, known)
    np.testing.assert_allclose(zero.cluster_centers_, plain.cluster_centers_, atol=1e-7)
    assert zero.objective_ == pytest.approx(plain.objective_, rel=1e-12)
    small = SemiSupervisedEKMeans(3, alpha=1.0, theta=1e-7, tol=1e-8).fit(X, known)
    np.testing.assert_allclose(small.cluster_centers_, plain.cluster_centers_, atol=1e-5)


def test_all_labels_at_theta_one_are_the_class_means():
    X, y = overlapping(1)
    model = SemiSupervisedEKMeans(4, theta="auto").fit(X, y)
    assert model.theta_ == 1.0
    means = np.array([X[y == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(model.cluster_centers_, means, atol=1e-9)
    scatter = sum(((X[y == k] - means[k]) ** 2).sum() for k in range(4))
    assert model.objective_ == pytest.approx(0.5 * scatter, rel=1e-9)


def test_more_theta_lowers_what_labelled_rows_pay():
    X, y = overlapping(0)
    known = partly(y, 0.1, 0)
    rows = np.flatnonzero(known >= 0)
    paid = []
    for theta in (0.0, 0.5, 1.0, 3.0, 10.0):
        model = SemiSupervisedEKMeans(4, theta=theta, tol=1e-6, max_iter=1000).fit(X, known)
        d = 0.5 * model.transform(X[rows]) ** 2
        own = d[np.arange(len(rows)), known[rows]].sum()
        paid.append(own - np.sum(model.membership(X[rows]) * d))
    # Two minima C, C' of J + theta Q and J + theta' Q have (theta' - theta) (Q(C') - Q(C)) <= 0.
    assert (np.diff(paid) < 0).all()


def test_no_label_is_ekmeans():
    X, _ = set_a()
    parameters = {"alpha": 1.0, "init": "k-means++", "n_init": 4, "random_state": 3}
    plain = EKMeans(3, **parameters).fit(X)
    for y, prior in ((None, None), (np.full(len(X), -1), None), (None, np.zeros((len(X), 3)))):
        model = SemiSupervisedEKMeans(3, **parameters).fit(X, y, prior=prior)
        assert model.theta_ == 0.0
        np.testing.assert_allclose(model.cluster_centers_, plain.cluster_centers_, atol=1e-3)
        assert model.objective_ == pytest.approx(plain.objective_, rel=1e-6)


def test_theta_auto():
    X, y = set_a()
    known = partly(y, 0.2, 0)
    labelled = (known >= 0).sum()
    assert SemiSupervisedEKMeans(3).fit(X, known).theta_ == pytest.approx(len(X) / labelled)
    few = np.full(len(X), -1)
    few[[0, 2000, 2050]] = [0, 1, 2]
    assert SemiSupervisedEKMeans(3).fit(X, few).theta_ == 3.0


def test_a_prior_of_ones_is_labels():
    X, y = set_a()
    known = partly(y, 0.05, 0)
    prior = np.zeros((len(X), 3))
    prior[known >= 0, known[known >= 0]] = 1
    a = SemiSupervisedEKMeans(3).fit(X, known)
    b = SemiSupervisedEKMeans(3).fit(X, prior=prior)
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    assert a.objective_ == b.objective_


def test_a_prior_may_be_unsure_and_partial():
    X, y = overlapping(2)
    known = partly(y, 0.1, 0)
    prior = np.zeros((len(X), 4))
    prior[known >= 0] = 0.05
    prior[known >= 0, known[known >= 0]] = 0.75  # rows sum to 0.9
    model = SemiSupervisedEKMeans(4, theta=2.0).fit(X, prior=prior)
    rest = known < 0
    assert np.mean(model.labels_[rest] == y[rest]) > 0.5
    # A prior that leans nowhere seeds nothing.
    X, y = set_a()
    even = np.zeros((len(X), 3))
    even[::50] = 1 / 3
    model = SemiSupervisedEKMeans(3, alpha=1.0, theta=0.1, random_state=0).fit(X, prior=even)
    assert model.n_clusters_effective_ == 3


def test_weight_two_is_the_row_twice():
    X, y = set_a()
    known = partly(y, 0.05, 0)
    weight = np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    twice = weight.astype(int)
    a = SemiSupervisedEKMeans(3, tol=1e-10).fit(X, known, sample_weight=weight)
    b = SemiSupervisedEKMeans(3, tol=1e-10).fit(np.repeat(X, twice, axis=0), known.repeat(twice))
    np.testing.assert_allclose(a.cluster_centers_, b.cluster_centers_, atol=1e-8)
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-10)
    assert a.theta_ == pytest.approx(b.theta_, rel=1e-12)


def test_labels_of_weight_zero_do_not_count():
    X, y = set_a()
    known = partly(y, 0.05, 0)
    X2, known2 = np.vstack([X, X[:100] + 50]), np.r_[known, np.arange(100) % 3]
    weight = np.r_[np.ones(len(X)), np.zeros(100)]
    a = SemiSupervisedEKMeans(3).fit(X2, known2, sample_weight=weight)
    b = SemiSupervisedEKMeans(3).fit(X, known)
    np.testing.assert_allclose(a.cluster_centers_, b.cluster_centers_, atol=1e-6)
    # Where all labels weigh nothing there are none.
    none = SemiSupervisedEKMeans(3, alpha=1.0, random_state=0)
    none.fit(X, known, sample_weight=np.where(known >= 0, 0.0, 1.0))
    assert none.theta_ == 0.0
    assert np.isfinite(none.cluster_centers_).all()


@pytest.mark.parametrize("theta", [0.5, 1.0, "auto"])
def test_objective_history_falls(theta):
    X, y = set_a()
    model = SemiSupervisedEKMeans(3, alpha=1.0, theta=theta).fit(X, partly(y, 0.05, 0))
    history = model.objective_history_
    assert len(history) > 3
    assert (np.diff(history) <= 1e-12 * np.abs(history[:-1])).all()
    assert history[-1] == model.objective_


def test_shift_and_scale_equivariance():
    X, y = overlapping(0)
    known = partly(y, 0.05, 0)
    plain = SemiSupervisedEKMeans(4).fit(X, known)
    moved = SemiSupervisedEKMeans(4).fit(X * 1e6 + 1e8, known)
    np.testing.assert_array_equal(plain.labels_, moved.labels_)
    back = (moved.cluster_centers_ - 1e8) / 1e6
    np.testing.assert_allclose(back, plain.cluster_centers_, atol=1e-6)


def test_float32_is_kept():
    X, y = overlapping(0)
    known = partly(y, 0.05, 0)
    model = SemiSupervisedEKMeans(4).fit(X.astype(np.float32), known)
    assert model.cluster_centers_.dtype == np.float32
    assert model.transform(X.astype(np.float32)).dtype == np.float32
    double = SemiSupervisedEKMeans(4).fit(X, known)
    assert model.objective_ == pytest.approx(double.objective_, rel=1e-5)
    assert np.mean(model.labels_ == double.labels_) > 0.99


def test_same_seed_same_bits_for_any_number_of_threads():
    g = np.random.default_rng(0)
    y = g.integers(0, 3, 20_000)
    X = (g.standard_normal((20_000, 5)) + 3 * np.eye(5)[y]).astype(np.float32)
    known = np.where(np.arange(20_000) % 50 == 0, np.minimum(y, 1), -1)
    fits = [
        SemiSupervisedEKMeans(3, random_state=1, n_init=3, n_threads=n).fit(X, known)
        for n in (1, 2, 3)
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.cluster_centers_, fits[0].cluster_centers_)
        assert other.objective_ == fits[0].objective_


def test_works_with_scikit_learn_and_pandas():
    pd = pytest.importorskip("pandas")
    X, y = set_a()
    known = partly(y, 0.05, 0)
    frame = pd.DataFrame(X, columns=["a", "b"])
    labels = make_pipeline(StandardScaler(), SemiSupervisedEKMeans(3)).fit_predict(frame, known)
    assert np.mean(labels == y) > 0.9
    # A column of labels with gaps comes as floats, and is as good.
    gaps = pd.Series(known).where(known >= 0).fillna(-1)
    model = clone(SemiSupervisedEKMeans(3)).set_output(transform="pandas").fit(frame, gaps)
    np.testing.assert_array_equal(model.labels_, labels)
    assert list(model.transform(frame).columns) == [f"semisupervisedekmeans{k}" for k in range(3)]
    np.testing.assert_array_equal(SemiSupervisedEKMeans(3).fit_predict(X, known), model.labels_)
    grid = GridSearchCV(
        SemiSupervisedEKMeans(3), {"theta": [0.5, 2.0]}, scoring="adjusted_rand_score", cv=2
    )
    mixed = np.random.default_rng(0).permutation(len(X))
    assert set(grid.fit(X[mixed], known[mixed]).best_params_) == {"theta"}


def test_says_when_it_did_not_converge():
    X, y = overlapping(0)
    with pytest.warns(ConvergenceWarning, match=r"SemiSupervisedEKMeans .*\(max_iter=2\)"):
        model = SemiSupervisedEKMeans(4, max_iter=2).fit(X, partly(y, 0.05, 0))
    assert not model.converged_


def test_coincident_classes_share_the_first_id():
    X, _ = set_a()
    known = np.full(len(X), -1)
    known[[5, 6]] = [1, 2]
    X[6] = X[5]
    with pytest.warns(ConvergenceWarning, match="only 2 of 3 centroids are distinct"):
        model = SemiSupervisedEKMeans(3, alpha=1.0, theta=0.0, random_state=0).fit(X, known)
    assert set(model.labels_) == {0, 1}


def test_clusters_without_labels_start_at_the_centroids_of_hard_kmeans():
    X, y = set_a()
    known = np.full(len(X), -1)
    known[y == 0] = np.where(np.arange((y == 0).sum()) < 40, 1, -1)
    prior = csr_matrix((np.ones(40), (np.flatnonzero(known == 1), np.ones(40, int))), (len(X), 3))
    given = supervise(ArrayRows(X), prior)
    problem = Problem(ArrayRows(X), 3, tol=1e-4, max_iter=300)
    starts = starts_with_labels(problem, given, "k-means", 4, np.random.RandomState(0))
    assert starts.shape == (4, 3, 2)
    rest = X[known < 0]
    for start in starts:
        # The class stays at its mean, the others are the means of the rows nearest to them.
        np.testing.assert_allclose(start[1], X[known == 1].mean(axis=0), rtol=1e-12)
        nearest = ((rest[:, None] - start) ** 2).sum(axis=2).argmin(axis=1)
        means = [rest[nearest == k].mean(axis=0) for k in (0, 2)]
        np.testing.assert_allclose(start[[0, 2]], means, atol=0.05)
    plain = starts_with_labels(problem, given, "k-means++", 4, np.random.RandomState(0))
    assert not np.isclose(plain, starts).all()


PLAIN = [1, -1, -1, -1, -1, 0]
GAPS = [1, None, -1, -1, -1, 0]
WORDS = ["b", "", "", "", "", "a"]


def columns(values):
    """The values as columns of the libraries that there are, by name."""
    pd = pytest.importorskip("pandas")
    found = {"list": values, "object": np.array(values, object)}
    found["nullable"] = pd.Series(values, dtype="string" if isinstance(values[0], str) else "Int64")
    found["category"] = pd.Series(values).astype("category")
    found["categorical"] = pd.Categorical(values)
    try:
        import polars as pl
        import pyarrow as pa
    except ImportError:
        return found
    found["polars"] = pl.Series(values)
    found["arrow"] = pa.array(values)
    found["chunked"] = pa.chunked_array([values])
    found["arrow in pandas"] = pd.Series(values, dtype=pd.ArrowDtype(pa.array(values).type))
    return found


def test_labels_come_as_any_library_has_them():
    X = [[0.0], [1], [2], [8], [9], [10]]
    expected = SemiSupervisedEKMeans(2).fit(X, PLAIN).cluster_centers_
    for y in columns(PLAIN).values():
        found = SemiSupervisedEKMeans(2).fit(X, y).cluster_centers_
        np.testing.assert_array_equal(found, expected)
    masked = np.ma.array(PLAIN, mask=[0, 1, 0, 0, 0, 0])
    for y in [*columns(GAPS).values(), masked]:
        with pytest.raises(ValueError, match=r"y must hold .*got (nan|a missing value) in row 1"):
            SemiSupervisedEKMeans(2).fit(X, y)
    for y in columns(WORDS).values():
        with pytest.raises(TypeError, match="Unknown label type: y must hold integers, -1 where"):
            SemiSupervisedEKMeans(2).fit(X, y)


def test_an_overflow_is_blamed_on_what_overflows():
    X = 1e5 * np.random.default_rng(0).normal(size=(50, 2))
    y = [0, 1] + [-1] * 48
    with pytest.raises(ValueError, match="scale sample_weight down"):
        SemiSupervisedEKMeans(2).fit(X, y, sample_weight=np.full(50, 1e307))
    with pytest.raises(ValueError, match="scale X down"):
        SemiSupervisedEKMeans(2).fit(1e200 * X, y, sample_weight=np.ones(50))


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e-25), (np.float64, 1e-170)])
def test_units_in_which_squares_underflow_are_named(dtype, scale):
    X, y = set_a()
    X = (scale * X).astype(dtype)
    with pytest.raises(ValueError, match=f"distances underflow {X.dtype}: scale X up"):
        SemiSupervisedEKMeans(3).fit(X, partly(y, 0.05, 0))


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        ([0, 1, 10**5000, -1], ValueError, "got an integer of more than 64 bits in row 2"),
        ([0, 1, 2, -1], ValueError, "to n_clusters - 1 = 1, got 2"),
        ([0, 1, -2, -1], ValueError, r"from -1 \(unknown\) .* got -2"),
        ([0, 1, 0.5, -1], ValueError, "got 0.5"),
        ([0, 1, np.nan, -1], ValueError, "got nan"),
        ([0, 1, -1], ValueError, r"y must have shape \(n_samples,\) = \(4,\), got \(3,\)"),
        ([[0], [1], [-1], [-1]], ValueError, r"got \(4, 1\)"),
        (["a", "b", "a", "b"], TypeError, "Unknown label type: y must hold integers"),
        ([True, False, True, False], TypeError, "y must hold integers"),
    ],
)
def test_bad_labels(y, error, match):
    with pytest.raises(error, match=match):
        SemiSupervisedEKMeans(2).fit([[0.0], [1.0], [2.0], [3.0]], y)


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        ([[0.5, 0.6], [0, 0], [0, 0]], "rows of prior must sum to at most 1, got a sum of 1.1"),
        ([[-0.1, 0.6], [0, 0], [0, 0]], "prior must hold probabilities >= 0, got -0.1"),
        ([[1, 0], [0, 0]], r"prior must have shape \(n_samples, n_clusters\) = \(3, 2\)"),
        ([[1, 0, 0], [0, 0, 0], [0, 0, 0]], r"got \(3, 3\)"),
        ([[np.nan, 0], [0, 0], [0, 0]], "prior contains NaN"),
        (np.ma.array(np.eye(3, 2), mask=np.eye(3, 2) > 0), "prior must not hold masked values"),
    ],
)
def test_bad_prior(prior, match):
    with pytest.raises(ValueError, match=match):
        SemiSupervisedEKMeans(2).fit([[0.0], [1.0], [2.0]], prior=prior)


def test_labels_and_prior_exclude_each_other():
    with pytest.raises(ValueError, match="give y or prior, not both"):
        SemiSupervisedEKMeans(2).fit([[0.0], [1.0]], [0, 1], prior=[[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be an integer >= 1, got 0"),
        ({"n_clusters": 11}, ValueError, "n_samples=10 should be >= n_clusters=11"),
        ({"theta": -1}, ValueError, "theta must be 'auto' or a finite number >= 0, got -1"),
        ({"theta": np.inf}, ValueError, "theta must be 'auto' or a finite number >= 0"),
        ({"theta": "big"}, ValueError, "theta must be 'auto' or a finite number >= 0, got 'big'"),
        ({"theta": None}, TypeError, "theta must be 'auto' or a finite number >= 0, got None"),
        (
            {"alpha": "auto"},
            ValueError,
            "alpha must be 'dvariance' or a finite number > 0, got 'auto'",
        ),
        ({"alpha": 0}, ValueError, "alpha must be"),
        ({"scale": 0}, ValueError, "scale must be a finite number > 0, got 0"),
        ({"init": "best"}, ValueError, "init must be 'auto', .* got str 'best'"),
        ({"init": np.zeros((3, 2))}, ValueError, r"init must have shape .* = \(2, 2\)"),
        ({"n_init": 0}, ValueError, "n_init must be 'auto' or an integer >= 1"),
        ({"max_iter": 0}, ValueError, "max_iter must be an integer >= 1"),
        ({"tol": -1}, ValueError, "tol must be a finite number >= 0"),
        ({"device": "tpu"}, ValueError, "device must be 'cpu', 'cuda' or 'auto', got 'tpu'"),
        ({"n_threads": 0}, ValueError, "n_threads must be None or an integer >= 1"),
    ],
)
def test_bad_parameters(parameters, error, match):
    X = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(error, match=match):
        SemiSupervisedEKMeans(**{"n_clusters": 2, **parameters}).fit(X, [0, 1] + [-1] * 8)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.array([[0.0], [np.nan], [1.0]]), "NaN"),
        (np.array([[1e200], [-1e200], [0.0]]), "overflow"),
    ],
)
def test_bad_data(X, match):
    with pytest.raises(ValueError, match=match):
        SemiSupervisedEKMeans(2).fit(X, [0, 1, -1])


def test_verbose_prints_passes(capsys):
    X, y = set_a()
    SemiSupervisedEKMeans(3, verbose=1).fit(X, partly(y, 0.02, 0))
    assert "pass 1: best objective" in capsys.readouterr().out
