"""The pictures that need no training."""

import numpy as np
import pytest

from ekmfast.plotting import plot_clusters, plot_sizes


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
