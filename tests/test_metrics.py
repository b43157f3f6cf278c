"""Scores of clusterings, and the pictures that need no training."""

import numpy as np
import pytest

from ekmfast.metrics import cluster_sizes, clustering_accuracy, imbalance_ratio
from ekmfast.plotting import plot_clusters, plot_sizes


def test_accuracy_does_not_depend_on_the_names_of_clusters():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 200)
    pred = np.where(rng.random(200) < 0.8, true, rng.integers(0, 5, 200))
    expected = clustering_accuracy(true, pred)
    assert expected == np.mean(true == pred)
    assert clustering_accuracy(true, rng.permutation(5)[pred] + 10) == expected
    assert clustering_accuracy(true.astype(str), pred) == expected


@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        ([0, 1, 2], [0, 0, 0], 1 / 3),  # fewer clusters than classes
        ([0, 0, 0, 0], [0, 0, 1, 2], 1 / 2),  # more: the unmatched ones are wrong
        # The greedy choice, cluster 0 for class 0, would give 3 of 7.
        ([0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1], 4 / 7),
        ([True, False], [0, 1], 1.0),
    ],
)
def test_accuracy_of_small_cases(true, pred, expected):
    assert clustering_accuracy(true, pred) == pytest.approx(expected)


def test_sizes_and_ratio():
    assert cluster_sizes(np.array([2, 0, 2], np.int32)).tolist() == [1, 0, 2]
    assert cluster_sizes([0], n_clusters=3).tolist() == [1, 0, 0]
    assert imbalance_ratio([0] * 400 + [1] * 20 + [5] * 40) == 20
    assert imbalance_ratio(["a"]) == 1


@pytest.mark.parametrize("function", [cluster_sizes, imbalance_ratio])
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([], ValueError, "labels is empty"),
        ([[0, 1]], ValueError, "one-dimensional"),
        ([0.0, 1.0], TypeError, "float64"),
    ],
)
def test_bad_labels_are_refused(function, labels, error, message):
    with pytest.raises(error, match=message):
        function(labels)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 entries and labels_pred 3"):
        clustering_accuracy([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="labels_pred is empty"):
        clustering_accuracy([0, 1], [])
    with pytest.raises(ValueError, match="value -1"):
        cluster_sizes([-1, 0])
    with pytest.raises(ValueError, match="below n_clusters=2"):
        cluster_sizes([0, 2], n_clusters=2)
    with pytest.raises(TypeError, match="integer"):
        cluster_sizes(["a"])


def test_clusters_of_an_estimator_are_drawn_with_its_centroids():
    from ekmfast import EKMeans

    X = np.random.default_rng(0).normal(size=(50, 2)) + np.repeat([[0, 0], [9, 9]], 25, axis=0)
    model = EKMeans(2, random_state=0).fit(X)
    ax = plot_clusters(X, model)
    assert sum(len(c.get_offsets()) for c in ax.collections[:2]) == 50
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), model.cluster_centers_)
    assert plot_clusters(X, model.labels_, ax=ax) is ax


def test_pictures_leave_pyplot_alone():
    import sys

    before = "matplotlib.pyplot" in sys.modules
    plot_sizes({"a": [3, 0], "b": [1, 2]})
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_bad_pictures_are_refused():
    with pytest.raises(ValueError, match=r"X has shape \(2, 3\)"):
        plot_clusters(np.zeros((2, 3)), [0, 1])
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        plot_clusters(np.zeros((2, 2)), [0])
    with pytest.raises(ValueError, match="one length"):
        plot_sizes({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="1 entries"):
        plot_sizes({"a": [1, 2]}, names=["x"])
    with pytest.raises(TypeError, match="sizes is a list: must be a dict"):
        plot_sizes([1, 2])
