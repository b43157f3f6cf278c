"""Memory maps of large files are read in blocks, and take sample weights as arrays do."""

from __future__ import annotations

import numpy as np
import pytest

from ekmfast import EKMeans


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_large_memory_map_takes_sample_weight(tmp_path, monkeypatch, mode):
    monkeypatch.setattr("ekmfast.rows.given.LARGE_MEMMAP", 1000)
    monkeypatch.setattr("ekmfast.rows.blocks.block.BLOCK_BYTES", 4000)
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(500, 3)), rng.normal(8, 1, size=(40, 3))])
    weight = rng.integers(0, 3, len(X)).astype(np.float64)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    start = X[[0, -1]]
    model = EKMeans(2, alpha=0.5, init=start).fit(mapped, sample_weight=weight)
    plain = EKMeans(2, alpha=0.5, init=start).fit(X, sample_weight=weight)
    np.testing.assert_allclose(model.cluster_centers_, plain.cluster_centers_, rtol=1e-9)
    scored = model.score(mapped, sample_weight=weight)
    assert scored == pytest.approx(plain.score(X, sample_weight=weight), rel=1e-9)
    view = EKMeans(2, alpha=0.5, init=start).fit(mapped[40:], sample_weight=weight[40:])
    cut = EKMeans(2, alpha=0.5, init=start).fit(X[40:], sample_weight=weight[40:])
    np.testing.assert_allclose(view.cluster_centers_, cut.cluster_centers_, rtol=1e-9)
    for wrong, match in ((weight[:-1], "sample_weight"), (np.zeros(len(X)), "sample.weight")):
        with pytest.raises(ValueError, match=f"(?i){match}"):
            model.fit(mapped, sample_weight=wrong)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_what_an_array_takes_as_weight_a_large_memory_map_takes_too(tmp_path, monkeypatch, mode):
    monkeypatch.setattr("ekmfast.rows.given.LARGE_MEMMAP", 1000)
    monkeypatch.setattr("ekmfast.rows.blocks.block.BLOCK_BYTES", 4000)
    X = np.concatenate([np.random.default_rng(i).normal(9 * i, 1, (300, 3)) for i in range(2)])
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    for weight in (2, 2.0, np.float32(2), np.full(600, 2), [2.0] * 600):
        model = EKMeans(2, alpha=0.5, init=X[[0, -1]]).fit(mapped, sample_weight=weight)
        plain = EKMeans(2, alpha=0.5, init=X[[0, -1]]).fit(X, sample_weight=weight)
        np.testing.assert_allclose(model.cluster_centers_, plain.cluster_centers_, rtol=1e-9)
        assert model.objective_ == pytest.approx(plain.objective_, rel=1e-9)
    masked = np.ma.masked_equal(np.arange(600.0), 5)
    for wrong in (-2.0, np.nan, 0.0, np.full((600, 1), 2.0), masked):
        for data in (mapped, X):
            with pytest.raises(ValueError, match=r"(?i)sample.weight"):
                model.fit(data, sample_weight=wrong)
