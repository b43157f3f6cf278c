"""Plots of clusterings."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone

from ekmfast.kernels import compute_weights
from ekmfast.plotting import (
    new_figure,
    plot_alpha_path,
    plot_anomaly_map,
    plot_cluster_path,
    plot_clusters,
    plot_mixture,
    plot_repulsion,
    plot_sizes,
)


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


def test_an_anomaly_map_is_drawn_below_its_image():
    rng = np.random.default_rng(0)
    images, back = rng.random((2, 4, 3, 8, 8))
    axes = plot_anomaly_map(images, back)
    assert axes.shape == (3, 4)
    np.testing.assert_allclose(axes[0, 1].images[0].get_array(), images[1].transpose(1, 2, 0))
    errors = ((images - back) ** 2).mean(axis=1)
    for ax, error in zip(axes[2], errors, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), error)
        assert ax.images[0].get_clim() == (0, errors.max())
        assert ax.get_xlabel() == f"{error.mean():.4f}"
    grey = (255 * images[:, 0]).astype(np.uint8)
    again = plot_anomaly_map(grey, grey, axes)
    assert again[0, 0] is axes[0, 0]
    with pytest.raises(ValueError, match="reconstructions has shape"):
        plot_anomaly_map(images, back[:2])
    with pytest.raises(ValueError, match=r"images has shape \(8, 8\)"):
        plot_anomaly_map(images[0, 0], back)
    with pytest.raises(ValueError, match="axes has shape"):
        plot_anomaly_map(images, back, axes[:2])


def test_bad_pictures_are_refused():
    with pytest.raises(ValueError, match=r"X has shape \(2, 3\)"):
        plot_clusters(np.zeros((2, 3)), [0, 1])
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        plot_clusters(np.zeros((2, 2)), [0])
    with pytest.raises(ValueError, match="one length"):
        plot_sizes({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="1 entries"):
        plot_sizes({"a": [1, 2]}, names=["x"])
    with pytest.raises(TypeError, match=r"sizes must be a dict .*, got \[1, 2\]"):
        plot_sizes([1, 2])


# --- repulsion -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imbalanced():
    from ekmfast import EKMeans

    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(c, 1, (n, 2)) for c, n in ((0, 400), (4, 20), (9, 30))])
    return X, EKMeans(3, random_state=0, alpha=0.5).fit(X)


def samples_of(ax):
    """The scatter of the samples, which has more points than those of the crosses."""
    return max(ax.collections, key=lambda c: len(c.get_offsets()))


def test_repulsion_shows_the_weights_of_each_centroid(imbalanced):
    X, model = imbalanced
    axes = plot_repulsion(X, model)
    weights = model.weights(X)
    assert (weights < -0.01).any()
    for k, ax in enumerate(axes):
        drawn = samples_of(ax)
        place = np.lexsort(np.asarray(drawn.get_offsets()).T)
        np.testing.assert_allclose(drawn.get_array()[place], weights[np.lexsort(X.T), k])
        red, _, blue, _ = drawn.cmap(drawn.norm(weights.min()))
        assert red > blue
        red, _, blue, _ = drawn.cmap(drawn.norm(weights.max()))
        assert blue > red
        assert drawn.norm(0) == 0.5
        np.testing.assert_allclose(ax.collections[-1].get_offsets(), [model.cluster_centers_[k]])
    assert len({samples_of(ax).norm.vmin for ax in axes}) == 1
    axes[0].figure.draw_without_rendering()


def test_repulsion_of_one_centroid_and_into_given_axes(imbalanced):
    X, model = imbalanced
    one = plot_repulsion(X, model, cluster=np.int64(2))
    assert one.get_title().startswith("centroid 2: pull ")
    _, axes = new_figure(9, 3, columns=3)
    drawn = plot_repulsion(X, model, ax=axes)
    assert all(mine is given for mine, given in zip(drawn, axes[0], strict=True))
    assert plot_repulsion(X, model, cluster=0, ax=one) is one


@pytest.mark.parametrize("n_clusters", [1, 5])
def test_repulsion_with_other_numbers_of_centroids(n_clusters):
    centroids = np.arange(2.0 * n_clusters).reshape(-1, 2)
    model = SimpleNamespace(
        cluster_centers_=centroids, weights=lambda X: compute_weights(X, centroids, 1.0)
    )
    axes = plot_repulsion(np.zeros((3, 2), np.float32), model)
    assert len(axes) == n_clusters
    # The panels, and the colour scale.
    assert len(axes[0].figure.axes) == n_clusters + 1
    axes[0].figure.draw_without_rendering()


def test_repulsion_takes_data_frames(imbalanced):
    pandas = pytest.importorskip("pandas")
    X, model = imbalanced
    frame = pandas.DataFrame(X, columns=["a", "b"])
    named = clone(model).fit(frame)
    drawn, expected = (plot_repulsion(x, m, cluster=0) for x, m in ((frame, named), (X, model)))
    np.testing.assert_array_equal(samples_of(drawn).get_array(), samples_of(expected).get_array())
    assert named.feature_names_in_.tolist() == ["a", "b"]


def test_bad_repulsion_is_refused(imbalanced):
    X, model = imbalanced
    with pytest.raises(ValueError, match=r"X has shape \(450, 1\)"):
        plot_repulsion(X[:, :1], model)
    with pytest.raises(ValueError, match="no rows"):
        plot_repulsion(X[:0], model)
    with pytest.raises(ValueError, match="cluster must be an integer >= 0 and <= 2, got 3"):
        plot_repulsion(X, model, cluster=3)
    with pytest.raises(TypeError, match=r"cluster must be .*, got 1\.0"):
        plot_repulsion(X, model, cluster=1.0)
    with pytest.raises(ValueError, match="ax has 2 Axes: must be 3"):
        plot_repulsion(X, model, ax=new_figure(4, 4, columns=2)[1])
    with pytest.raises(TypeError, match=r"estimator must be a fitted .*, got EKMeans\(\)"):
        plot_repulsion(X, type(model)())


# --- path of alphas ------------------------------------------------------------------------


def alpha_path(n_alphas=9, **changes):
    """Four clusters of which two small ones merge at small alphas; 1000 samples."""
    multiples = np.geomspace(0.5, 8, n_alphas)
    merged = multiples < 1
    sizes = np.where(merged[:, None], [0, 900, 40, 60], [25, 900, 40, 35])
    fields = {
        "alphas": 0.3 * multiples,
        "dvariance": 0.3,
        "sizes": sizes.astype(float),
        "likelihood": np.where(merged, -np.inf, -np.log(multiples)),
        "agreement": np.where(merged, 0.7, 1.0),
        "n_clusters_effective": (sizes > 0).sum(axis=1),
        "objective": 100 / multiples,
        "converged": multiples < 7,
        "best": min(int(merged.sum()), n_alphas - 1),
    }
    return SimpleNamespace(**{**fields, **changes})


def test_the_path_says_how_near_the_wanted_sizes_are():
    path = alpha_path(size_errors=np.linspace(0.3, 0.012, 9), best=8)
    title = plot_alpha_path(path)[0].get_title()
    assert title.endswith("x dvariance) has the wanted sizes up to 1.2 % of the samples")


def test_the_path_shows_sorted_shares_and_the_best_alpha():
    path = alpha_path()
    axes = plot_alpha_path(path)
    axes[0].figure.draw_without_rendering()
    bars = [bar for bar in axes[0].containers for bar in bar.patches]
    heights = np.array([bar.get_height() for bar in bars]).reshape(4, 9).T
    np.testing.assert_allclose(heights, -np.sort(-path.sizes, axis=1) / 1000)
    # Bars are adjacent, and each contains its alpha.
    left = np.array([bar.get_x() for bar in bars[:9]])
    right = left + [bar.get_width() for bar in bars[:9]]
    np.testing.assert_allclose(left[1:], right[:-1])
    multiples = path.alphas / path.dvariance
    assert ((left < multiples) & (multiples < right)).all()
    assert [text.get_text() for text in axes[0].texts] == ["40", "40"] + ["25"] * 7
    best = multiples[path.best]
    assert f"{path.alphas[path.best]:.4g} ({best:.3g} x dvariance)" in axes[0].get_title()
    for ax in axes:
        start, end = ax.patches[0].get_extents().transformed(ax.transData.inverted()).intervalx
        assert start < best < end


def test_the_path_shows_what_is_not_there_as_a_gap_and_what_did_not_converge_hollow():
    path = alpha_path()
    ax = plot_alpha_path(path)[1]
    line = ax.lines[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(line), np.isinf(path.likelihood))
    full, hollow = ax.collections
    assert len(full.get_offsets()) == path.converged.sum()
    assert len(hollow.get_offsets()) == (~path.converged).sum() == 1
    assert hollow.get_facecolor().tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("n_alphas", [1, 2, 40])
def test_paths_of_other_lengths(n_alphas):
    axes = plot_alpha_path(alpha_path(n_alphas), new_figure(6, 6, 3)[1])
    axes[0].figure.draw_without_rendering()
    assert len(axes[0].containers[0].patches) == n_alphas
    assert 1 <= len(axes[2].get_xticks()) <= 11


def test_a_path_without_clusters_says_so():
    path = alpha_path(likelihood=np.full(9, -np.inf), best=8)
    axes = plot_alpha_path(path)
    axes[0].figure.draw_without_rendering()
    assert axes[0].get_title() == "at no alpha are there two distinct clusters"


def test_bad_paths_are_refused():
    with pytest.raises(
        TypeError, match=r"must be the result of .*, got a dict without alphas, .*best$"
    ):
        plot_alpha_path({})
    with pytest.raises(ValueError, match="axes has 2 Axes"):
        plot_alpha_path(alpha_path(), new_figure(4, 4, 2)[1])


# --- numbers of clusters, and mixtures --------------------------------------------------------


@pytest.fixture(scope="module")
def long():
    rng = np.random.default_rng(0)
    return np.vstack([rng.normal(size=(200, 3)) * [6, 1, 1], rng.normal(8, 1, (40, 3))])


def test_the_cluster_path_is_drawn(long):
    from ekmfast import cluster_path

    path = cluster_path(long, 5, random_state=0, n_threads=1)
    axes = plot_cluster_path(path)
    assert axes.shape == (3,)
    assert axes[0].get_title() == f"{path.n_clusters[path.best]} clusters have the lowest criterion"
    criterion, bic, icl = (line.get_ydata() for line in axes[0].lines)
    np.testing.assert_allclose(criterion, path.criterion - path.criterion.min())
    np.testing.assert_allclose(bic, path.bic - path.bic.min())
    np.testing.assert_allclose(icl, path.icl - path.icl.min())
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), path.stability)
    heights = np.array([patch.get_height() for patch in axes[2].patches])
    # 5 numbers with 5 ranks each, and the band.
    assert heights.sum() == pytest.approx(5 + 1)
    assert plot_cluster_path(path, axes)[0] is axes[0]
    one = plot_cluster_path(cluster_path(np.ones((20, 2))))
    assert one[0].get_title() == "1 cluster has the lowest criterion"
    with pytest.raises(TypeError, match=r"path must be the result of ekmfast\.cluster_path, got a"):
        plot_cluster_path(long)
    with pytest.raises(ValueError, match="axes has 2 Axes: must be 3"):
        plot_cluster_path(path, axes[:2])


def test_the_background_of_a_cluster_path_is_grey(long):
    from matplotlib.colors import to_hex

    from ekmfast import cluster_path
    from ekmfast.plotting.axes import NO_CLUSTER

    X = np.concatenate([long, np.random.default_rng(0).uniform(-30, 30, (40, 3))])
    path = cluster_path(X, 3, background=True, random_state=0, n_threads=1)
    patches = plot_cluster_path(path)[2].patches
    assert sum(patch.get_height() for patch in patches) == pytest.approx(3 + 1)  # and the band
    grey = [patch for patch in patches if to_hex(patch.get_facecolor()) == NO_CLUSTER.lower()]
    assert [patch.get_x() + patch.get_width() / 2 for patch in grey] == pytest.approx([1, 2, 3])
    shares = path.background_sizes / len(X)
    assert shares[path.best] > 0.1
    np.testing.assert_allclose([patch.get_height() for patch in grey], shares)
    np.testing.assert_allclose([patch.get_y() for patch in grey], 1 - shares)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_ellipses_are_where_components_have_two_deviations(long, kind):
    from ekmfast import EquilibriumMixture

    for X in (long[:, :2], long):
        mixture = EquilibriumMixture(2, covariance_type=kind, random_state=0, n_threads=1).fit(X)
        ax = plot_mixture(X, mixture)
        assert len(ax.patches) == 2
        for k, ellipse in enumerate(ax.patches):
            # Rows of the component, in the plane: about 86 % lie within two deviations.
            drawn, _ = mixture.sample(20_000)
            own = drawn[mixture.predict(drawn) == k]
            plane = np.eye(2)
            if X.shape[1] == 3:
                plane = np.linalg.eigh(np.cov(X.T))[1][:, ::-1][:, :2]
            inside = ellipse.get_patch_transform().inverted().transform(own @ plane)
            share = (np.linalg.norm(inside, axis=1) < 1).mean()
            assert 0.80 < share < 0.97
    assert "principal component 1 (" in ax.get_xlabel()


def test_rows_of_the_background_are_grey(long):
    from matplotlib.colors import to_hex

    from ekmfast import EquilibriumMixture
    from ekmfast.plotting.axes import NO_CLUSTER

    X = np.concatenate([long[:, :2], np.random.default_rng(0).uniform(-90, 90, (40, 2))])
    mixture = EquilibriumMixture(2, background=True, random_state=0, n_threads=1).fit(X)
    ax = plot_mixture(X, mixture)
    assert len(ax.patches) == 2
    grey = ax.collections[0]
    assert to_hex(grey.get_facecolor()[0]) == NO_CLUSTER.lower()
    assert len(grey.get_offsets()) == (mixture.labels_ == -1).sum() > 20
    assert len(plot_clusters(X, np.full(len(X), -1)).collections) == 1


def test_ellipses_of_scikit_learns_mixture(long):
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(2, covariance_type="tied", random_state=0).fit(long)
    assert len(plot_mixture(long, mixture).patches) == 2


def test_bad_mixtures_are_refused(long):
    from ekmfast import EquilibriumMixture

    with pytest.raises(TypeError, match="mixture must be a fitted mixture with means_"):
        plot_mixture(long, EquilibriumMixture(2))
    mixture = EquilibriumMixture(2, random_state=0, n_threads=1, n_init=1).fit(long)
    with pytest.raises(ValueError, match=r"X has shape \(240, 2\): must be \(N, 3\)"):
        plot_mixture(long[:, :2], mixture)
    with pytest.raises(ValueError, match="deviations must be a finite number > 0, got 0"):
        plot_mixture(long, mixture, deviations=0)
    one = EquilibriumMixture(2, random_state=0, n_threads=1, n_init=1).fit(long[:, :1])
    with pytest.raises(ValueError, match="mixture has one feature: must have at least two"):
        plot_mixture(long[:, :1], one)


@pytest.mark.parametrize("n", [1, 2, 8])
def test_columns_of_an_anomaly_map_stay_aligned(n):
    images = np.random.default_rng(0).random((n, 1, 16, 16))
    axes = plot_anomaly_map(images, images / 2)
    axes[0, 0].figure.canvas.draw()
    for column in axes.T:
        left = [ax.get_position().x0 for ax in column]
        np.testing.assert_allclose(left, left[0], atol=1e-6)
