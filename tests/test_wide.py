"""Sparse rows with very many features: the search in their leading directions."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.sparse import csr_array, csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from ekmfast import EKMeans, EquilibriumMixture, alpha_path, cluster_path
from ekmfast.fit import directions as module
from ekmfast.fit.alpha import MULTIPLES
from ekmfast.fit.directions import WIDE, is_by_angle, is_wide, leading_directions, n_directions
from ekmfast.fit.wide import as_wide, find_in_directions
from ekmfast.rows.sparse import SparseRows

K, D = 4, 3_000
SIZES = 300, 150, 80, 30


def texts(seed=0, n_words=25, own_share=0.6):
    """Rows of unit length of four topics of 200 words each, and the topics."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(K), SIZES)
    numbers = np.repeat(np.arange(len(y)), n_words)
    of_topic = rng.integers(0, 200, len(numbers)) + 200 * y[numbers]
    common = rng.integers(200 * K, D, len(numbers))
    words = np.where(rng.random(len(numbers)) < own_share, of_topic, common)
    X = csr_matrix((np.ones(len(words)), (numbers, words)), (len(y), D))
    X.sum_duplicates()
    return csr_matrix(normalize(X)), y


X, TOPICS = texts()
CLEAR = texts(own_share=0.9)[0]


def fitted(rows=X, **options):
    return EKMeans(**({"n_clusters": K, "random_state": 0} | options)).fit(rows)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [csr_matrix, csr_array])
def test_topics_are_found(make, dtype, metric):
    model = fitted(make(X.astype(dtype)), metric=metric)
    assert model.converged_
    assert model.cluster_centers_.dtype == dtype
    assert adjusted_rand_score(TOPICS, model.labels_) > 0.95
    assert_array_equal(model.predict(X.astype(dtype)), model.labels_)


def test_topics_are_found_in_rows_of_different_lengths():
    lengths = np.random.default_rng(0).uniform(0.2, 5, len(TOPICS))
    longer = csr_matrix(sparse.diags(lengths) @ X)
    assert is_by_angle(SparseRows(X))
    assert not is_by_angle(SparseRows(longer))
    by_angle, same = fitted(longer, metric="cosine"), fitted(metric="cosine")
    assert_array_equal(by_angle.labels_, same.labels_)
    assert_allclose(by_angle.cluster_centers_, same.cluster_centers_, atol=1e-6)
    # Lengths count in the Euclidean metric. These are two clusters of one direction.
    counts = np.r_[np.ones(200), np.full(100, 20)]
    words = csr_matrix((np.repeat(counts, 5), (np.repeat(np.arange(300), 5), np.arange(1500) % 5)))
    words.resize(300, D)
    assert adjusted_rand_score(counts, fitted(words, n_clusters=2).labels_) == 1


def test_the_end_is_that_of_a_fit_at_the_alpha_that_was_found():
    model = fitted(tol=1e-9)
    again = fitted(tol=1e-9, alpha=model.alpha_, init=model.cluster_centers_)
    assert_allclose(again.cluster_centers_, model.cluster_centers_, atol=1e-8)
    assert again.objective_ == pytest.approx(model.objective_, rel=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_bits_do_not_depend_on_the_number_of_threads(metric):
    one, four = (fitted(metric=metric, n_threads=n) for n in (1, 4))
    assert_array_equal(one.cluster_centers_, four.cluster_centers_)
    assert one.alpha_ == four.alpha_


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_units_do_not_matter(metric):
    model = fitted(metric=metric)
    for power in (-300, -40, 40, 300):
        scaled = X.copy()
        scaled.data = np.ldexp(scaled.data, power)
        if metric == "euclidean" and abs(power) == 300:
            continue  # squared distances leave the range of float64, and an error says so
        assert_array_equal(fitted(scaled, metric=metric).labels_, model.labels_)


def test_rows_without_weight_do_not_matter():
    rng = np.random.default_rng(0)
    noise = normalize(sparse.random(200, D, 0.01, "csr", random_state=1))
    both = csr_matrix(sparse.vstack([X, noise]))
    weight = np.r_[rng.uniform(0.5, 2, len(TOPICS)), np.zeros(200)]
    for tiny in (1, 1e-200):
        model = EKMeans(K, random_state=0).fit(both, sample_weight=tiny * weight)
        assert adjusted_rand_score(TOPICS, model.labels_[: len(TOPICS)]) > 0.95


def test_rows_of_zeros_have_no_topic():
    rows = csr_matrix(sparse.vstack([csr_matrix((3, D)), X]))
    model = fitted(rows, metric="cosine", zero_rows="label")
    assert_array_equal(model.labels_[:3], -1)
    assert adjusted_rand_score(TOPICS, model.labels_[3:]) > 0.95
    with pytest.raises(ValueError, match="row 0 of X is zero"):
        fitted(rows, metric="cosine")
    # In the Euclidean metric rows then have several lengths, and zeros are rows as all others.
    assert fitted(rows, n_clusters=K + 1).converged_
    empty = csr_matrix((20, D))
    with pytest.warns(match="only 1 of 2 centroids are distinct"):
        assert fitted(empty, n_clusters=2).labels_.tolist() == [0] * 20


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_starts_that_are_given(metric):
    first = X[[0, 300, 450, 530]].toarray()
    model = fitted(init=first, metric=metric)
    assert adjusted_rand_score(TOPICS, model.labels_) > 0.95
    calls = []

    def init(rows, n_clusters, random_state):
        calls.append(rows.shape)
        return first + 0.01 * random_state.uniform(size=first.shape)

    model = fitted(init=init, n_init=3, metric=metric)
    assert calls == [X.shape] * 3
    assert adjusted_rand_score(TOPICS, model.labels_) > 0.95
    for rule in ("k-means++", "farthest", "k-means", "random"):
        fitted(init=rule, metric=metric, n_init=4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_few_rows(metric):
    rng = np.random.default_rng(0)
    for n in range(2, 9):
        for k in range(2, n + 1):
            rows = csr_matrix(
                (np.ones(3 * n), (np.repeat(np.arange(n), 3), rng.integers(0, D, 3 * n))), (n, D)
            )
            model = fitted(rows, n_clusters=k, metric=metric)
            assert np.isfinite(model.cluster_centers_).all()
            assert set(model.labels_) <= set(range(k))
    # Five different rows, each of them twenty times, are five clusters.
    five = csr_matrix(np.repeat(np.eye(5, D), 20, axis=0))
    model = fitted(five, n_clusters=5, metric=metric)
    assert adjusted_rand_score(np.repeat(np.arange(5), 20), model.labels_) == 1


def test_rows_that_do_not_differ_in_their_directions_are_searched_in_all_features(monkeypatch):
    # Only the sampled rows have directions, and the rows of the second cluster are not among them.
    monkeypatch.setattr(module, "DIRECTION_ROWS", 1)
    rows = np.zeros((60, D))
    rows[:, 0] = rows[:30, 1] = 3
    rows[30:, 2] = 3
    rows = csr_matrix(rows)
    found = leading_directions(SparseRows(rows), 30)
    assert found.shape == (D, 1)
    model = fitted(rows, n_clusters=2)
    assert adjusted_rand_score(np.repeat([0, 1], 30), model.labels_) == 1


def test_progress_is_that_of_all_features(capsys):
    fitted(verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2


# --- the number of clusters ---


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_number_of_topics_is_found(metric):
    model = fitted(CLEAR, n_clusters="auto", metric=metric, max_clusters=8)
    assert len(model.cluster_centers_) == K
    assert adjusted_rand_score(TOPICS, model.labels_) > 0.95


def test_the_path_of_texts():
    path = cluster_path(CLEAR, 6, random_state=0)
    assert path.best == K - 1
    assert path.n_components == 20
    assert path.rows is None
    assert path.labels.shape == (6, len(TOPICS))
    assert adjusted_rand_score(TOPICS, path.labels[path.best]) > 0.95
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = EquilibriumMixture("auto", max_clusters=6, random_state=0).fit(CLEAR)
    assert len(mixture.weights_) == K


# --- directions ---


def test_directions_are_singular_vectors():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(400, 8)), sparse.random(8, D, 0.2, random_state=rng).toarray()
    rows = csr_matrix(left * 2.0 ** -np.arange(8) @ right)
    found = leading_directions(SparseRows(rows), 30)
    expected = np.linalg.svd(rows.toarray(), full_matrices=False)[2][:8].T
    assert found.shape == (D, 8)  # the rank
    assert_allclose(found.T @ found, np.eye(8), atol=1e-9)
    assert_allclose(np.abs(found.T @ expected), np.eye(8), atol=1e-9)


def test_directions_of_weighted_rows_are_those_of_repeated_ones():
    weight = np.random.default_rng(0).integers(0, 3, len(TOPICS))
    rng = np.random.default_rng(1)
    rows = csr_matrix(rng.normal(size=(len(TOPICS), 6)) @ rng.normal(size=(6, D)))
    repeated = rows[np.repeat(np.arange(len(TOPICS)), weight)]
    one = leading_directions(SparseRows(rows, weight.astype(float)), 6)
    other = leading_directions(SparseRows(repeated), 6)
    assert_allclose(np.abs(one.T @ other), np.eye(6), atol=1e-9)
    tiny = leading_directions(SparseRows(rows, 1e-300 * weight), 6)
    assert_allclose(np.abs(one.T @ tiny), np.eye(6), atol=1e-9)


def test_directions_hold_nearly_as_much_as_the_best_ones(monkeypatch):
    full = leading_directions(SparseRows(X), 30)
    best = np.linalg.svd(X.toarray(), full_matrices=False)[1][:30]
    assert ((X @ full) ** 2).sum() > 0.93 * (best**2).sum()
    monkeypatch.setattr(module, "DIRECTION_ROWS", 400)
    some = leading_directions(SparseRows(X), 30)
    assert ((X @ some) ** 2).sum() > 0.75 * (best**2).sum()


def test_which_rows_are_wide():
    assert is_wide(X)
    assert not is_wide(X[:, :WIDE])
    assert not is_wide(X.toarray())
    assert n_directions(2) == 30
    assert n_directions(50) == 70


def test_search_of_rows_that_are_alike_finds_nothing():
    from ekmfast.fit.problem import Problem

    rows = SparseRows(csr_matrix(np.ones((9, 1)) * np.eye(1, D)))
    problem = Problem(rows, 2, tol=1e-4, max_iter=10)
    assert find_in_directions(problem, "auto", "auto", np.random.RandomState(0), 2.0) is None


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_path_finds_the_topics_as_the_search_of_a_fit_does(metric):
    path = alpha_path(X, K, metric=metric, random_state=0)
    assert path.converged.all()
    assert_allclose(path.alphas / path.dvariance, MULTIPLES)
    assert adjusted_rand_score(TOPICS, path.labels[path.best]) > 0.95
    assert path.n_components == n_directions(K)
    # At the alpha that a fit chooses, which may lie outside of the grid, a run finds the same.
    model = fitted(metric=metric, tol=1e-9)
    same = alpha_path(X, K, [model.alpha_], metric=metric, tol=1e-9, random_state=0)
    assert same.alphas.tolist() == [model.alpha_]
    assert adjusted_rand_score(model.labels_, same.labels[0]) == 1
    assert same.objective[0] == pytest.approx(model.objective_, rel=1e-6)
    assert_array_equal(
        EKMeans(K, alpha=model.alpha_, init=same.centroids[0]).fit_predict(X), same.labels[0]
    )


def test_a_path_takes_weights_sizes_starts_and_rows_of_zeros():
    weight = np.random.default_rng(0).uniform(0.5, 2, len(TOPICS))
    path = alpha_path(X, K, target_sizes=SIZES, sample_weight=weight, random_state=0)
    assert path.sizes.sum(axis=1) == pytest.approx(np.full(len(MULTIPLES), weight.sum()))
    assert path.size_errors[path.best] < 0.05
    starts = np.stack([X[k == TOPICS].mean(axis=0).A1 for k in range(K)])
    given = alpha_path(X, K, init=starts, random_state=0)
    assert adjusted_rand_score(TOPICS, given.labels[given.best]) > 0.95
    rows = csr_matrix(sparse.vstack([csr_matrix((3, D)), X]))
    path = alpha_path(rows, K, metric="cosine", zero_rows="label", random_state=0)
    assert (path.labels[:, :3] == -1).all()
    assert adjusted_rand_score(TOPICS, path.labels[path.best, 3:]) > 0.95


def test_a_path_does_not_depend_on_the_number_of_threads():
    one, four = (alpha_path(X, K, random_state=0, n_threads=n) for n in (1, 4))
    assert_array_equal(one.centroids, four.centroids)
    assert one.best == four.best


@pytest.mark.parametrize("make", [csr_matrix, np.asarray])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rows_that_are_alike_are_one_cluster(value, make):
    rows = make(value * np.ones((9, 1)) * np.eye(1, D))
    path = alpha_path(rows, 2, [1.0, 2.0], random_state=0)
    assert path.n_clusters_effective.tolist() == [1, 1]
    assert cluster_path(rows, 3, random_state=0).n_clusters.tolist() == [1]
    assert EKMeans("auto", random_state=0).fit(rows).labels_.tolist() == [0] * 9


def test_alphas_of_a_path_are_checked():
    with pytest.raises(ValueError, match="alphas"):
        alpha_path(X, K, [-1.0])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_of_texts_has_the_clusters_of_the_sparse_matrix(metric, dtype):
    rows = X.astype(dtype)
    sparse_model, model = fitted(rows, metric=metric), fitted(rows.toarray(), metric=metric)
    assert model.converged_
    assert model.cluster_centers_.dtype == dtype
    assert_array_equal(model.labels_, sparse_model.labels_)
    assert model.alpha_ == pytest.approx(sparse_model.alpha_, rel=1e-6)
    assert_allclose(model.cluster_centers_, sparse_model.cluster_centers_, atol=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_paths_of_an_array_of_texts_are_those_of_the_sparse_matrix(metric):
    array = X.toarray()
    dense, found = (alpha_path(x, K, metric=metric, random_state=0) for x in (array, X))
    assert_array_equal(dense.labels, found.labels)
    assert dense.best == found.best


def test_the_number_of_topics_of_an_array_is_that_of_the_sparse_matrix():
    array = X.toarray()
    dense, found = (cluster_path(x, 5, random_state=0) for x in (array, X))
    assert_array_equal(dense.labels, found.labels)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(TOPICS))
    of_array = EKMeans("auto", max_clusters=5, random_state=0).fit(array, sample_weight=weight)
    of_matrix = EKMeans("auto", max_clusters=5, random_state=0).fit(X, sample_weight=weight)
    assert_array_equal(of_array.labels_, of_matrix.labels_)


def test_which_arrays_are_searched_as_sparse_rows():
    from ekmfast.fit.problem import Problem
    from ekmfast.rows.array import ArrayRows

    def is_searched(rows):
        return as_wide(Problem(ArrayRows(rows), 2, tol=1e-4, max_iter=10)) is not None

    array = X.toarray()
    assert is_searched(array)
    assert not is_searched(array[:, :WIDE])
    assert not is_searched(array + 1.0)
    for n_others, expected in ((900, True), (899, False)):
        some = np.pad(np.ones((30, 100)), [(0, 0), (0, n_others)])
        assert is_searched(some * np.arange(1.0, 31.0)[:, None]) == expected


def test_rows_of_zeros_in_an_array_have_no_topic():
    rows = np.concatenate([np.zeros((3, D)), X.toarray()])
    model = fitted(rows, metric="cosine", zero_rows="label")
    assert_array_equal(model.labels_[:3], -1)
    assert adjusted_rand_score(TOPICS, model.labels_[3:]) > 0.95


def test_a_callable_of_starts_gets_the_array():
    array, given = X.toarray(), []

    def init(rows, n_clusters, random_state):
        given.append(type(rows))
        return rows[random_state.choice(len(rows), n_clusters, replace=False)]

    model = fitted(array, init=init, n_init=3)
    assert model.cluster_centers_.shape == (K, D)
    path = alpha_path(array, K, init=init, n_init=3, random_state=0)
    assert adjusted_rand_score(TOPICS, path.labels[path.best]) > 0.5
    assert given == [np.ndarray] * 6
