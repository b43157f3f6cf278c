"""Scores of clusterings."""

import numpy as np
import pytest

from ekmfast.metrics import (
    class_recall,
    cluster_sizes,
    clustering_accuracy,
    cv_difference,
    imbalance_ratio,
)


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


@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        (["b", "b", "a", "b"], [0, 0, 5, 5], [1, 2 / 3]),  # in the order of the sorted classes
        ([0, 0, 0, 1], [3, 3, 3, 3], [1, 0]),  # fewer clusters than classes
        ([0, 0, 0, 0, 1], [0, 1, 2, 2, 3], [1 / 2, 1]),  # more
        # By class, cluster 0 would be the best of both.
        ([0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1], [2 / 5, 1]),
    ],
)
def test_recall_of_each_class(true, pred, expected):
    recall = class_recall(true, pred)
    assert recall.dtype == np.float64
    np.testing.assert_allclose(recall, expected)
    weighted = np.average(recall, weights=np.unique(true, return_counts=True)[1])
    assert weighted == pytest.approx(clustering_accuracy(true, pred))


def test_recall_of_a_labelling_with_known_names_is_scikit_learns():
    from sklearn.metrics import recall_score

    rng = np.random.default_rng(1)
    true = rng.choice(4, 300, p=[0.7, 0.2, 0.06, 0.04])
    pred = np.where(rng.random(300) < 0.85, true, rng.integers(0, 4, 300))
    expected = recall_score(true, pred, average=None)
    np.testing.assert_allclose(class_recall(true, pred), expected)
    np.testing.assert_allclose(class_recall(true, rng.permutation(4)[pred]), expected)


def test_difference_of_the_coefficients_of_variation():
    def labels(*sizes):
        return np.repeat(np.arange(len(sizes)), sizes)

    true = labels(90, 10)  # CV = sqrt(2 * 40**2) / 50
    assert cv_difference(true, true) == 0
    assert cv_difference(true, labels(50, 50)) == pytest.approx(-(3200**0.5) / 50)
    assert cv_difference(labels(50, 50), true) == pytest.approx(3200**0.5 / 50)
    # One cluster has no variation; with three, deviations 20, 0, -20 about 30 and n - 1 = 2.
    assert cv_difference(labels(50, 30, 10), labels(90)) == pytest.approx(-20 / 30)
    # Names and samples do not matter, sizes alone do.
    assert cv_difference(true, np.random.default_rng(0).permutation(9 - true)) == 0


def test_sizes_and_ratio():
    assert cluster_sizes(np.array([2, 0, 2], np.int32)).tolist() == [1, 0, 2]
    assert cluster_sizes([0], n_clusters=3).tolist() == [1, 0, 0]
    assert cluster_sizes([-1, 2, 0, 2, -1]).tolist() == [1, 0, 2]  # -1 is no cluster
    assert cluster_sizes([-1, -1]).tolist() == []
    assert cluster_sizes([-1, 1], n_clusters=3).tolist() == [0, 1, 0]
    assert cluster_sizes(np.array([1, 255], np.uint8)).sum() == 2
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
    for score in (clustering_accuracy, class_recall, cv_difference):
        with pytest.raises(ValueError, match="2 entries and labels_pred 3"):
            score([0, 1], [0, 1, 1])
        with pytest.raises(ValueError, match="labels_pred is empty"):
            score([0, 1], [])
        with pytest.raises(TypeError, match="labels_true has dtype float64"):
            score([0.0, 1.0], [0, 1])
    with pytest.raises(ValueError, match="value -2: must be at least -1"):
        cluster_sizes([-2, 0])
    with pytest.raises(ValueError, match="below n_clusters=2"):
        cluster_sizes([0, 2], n_clusters=2)
    with pytest.raises(TypeError, match="integer"):
        cluster_sizes(["a"])
