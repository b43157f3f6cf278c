"""The objective as a loss: its value, its gradient, and bad arguments."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch

from ekmfast import compute_weights, ekm_statistics
from ekmfast.autoencoder import equilibrium_loss


def problem(dtype=np.float64, offset=0.0):
    rng = np.random.default_rng(0)
    codes = (rng.normal(size=(40, 5)) + offset).astype(dtype)
    centroids = (rng.normal(size=(4, 5)) + offset).astype(dtype)
    return codes, centroids


@pytest.mark.parametrize("alpha", [0.1, 1.0, 30.0])
def test_it_is_the_objective(alpha):
    codes, centroids = problem()
    loss = equilibrium_loss(torch.from_numpy(codes), torch.from_numpy(centroids), alpha)
    expected = float(ekm_statistics(codes, centroids, alpha).objective) / len(codes)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_its_gradient_by_finite_differences():
    codes, centroids = (torch.from_numpy(a).requires_grad_() for a in problem())
    assert torch.autograd.gradcheck(lambda z, c: equilibrium_loss(z, c, 0.7), (codes, centroids))


@pytest.mark.parametrize("alpha", [0.3, 5.0])
def test_its_gradient_is_made_of_the_weights_of_equation_38(alpha):
    codes, centroids = problem()
    z, c = (torch.from_numpy(a).requires_grad_() for a in (codes, centroids))
    equilibrium_loss(z, c, alpha).backward()
    w = compute_weights(codes, centroids, alpha)
    assert (w < 0).any()
    difference = codes[:, None] - centroids
    by_code = (w[:, :, None] * difference).sum(axis=1) / len(codes)
    by_centroid = -(w[:, :, None] * difference).sum(axis=0) / len(codes)
    np.testing.assert_allclose(z.grad.numpy(), by_code, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(c.grad.numpy(), by_centroid, rtol=1e-9, atol=1e-12)


def test_far_from_the_origin_and_far_apart():
    near, far = problem(np.float32), problem(np.float32, offset=1000.0)
    a = equilibrium_loss(*map(torch.from_numpy, near), 1.0)
    b = equilibrium_loss(*map(torch.from_numpy, far), 1.0)
    assert float(b) == pytest.approx(float(a), rel=1e-3)  # 1000 is rounded to 6e-5
    apart = equilibrium_loss(torch.tensor([[0.0], [1e3]]), torch.tensor([[0.0], [1e3]]), 10.0)
    assert float(apart) == 0
    one = equilibrium_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0]]), 1.0)
    assert float(one) == 0.5


@pytest.mark.parametrize(
    ("codes", "centroids", "alpha", "message"),
    [
        (torch.zeros(3), torch.zeros(2, 2), 1.0, r"codes has shape \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(2, 3), 1.0, r"must be \(N, D\) and \(K, D\)"),
        (torch.zeros(0, 2), torch.zeros(2, 2), 1.0, "0 codes"),
        (torch.zeros(3, 2), torch.zeros(2, 2), 0.0, r"alpha must be .*, got 0\.0"),
        (torch.zeros(3, 2), torch.zeros(2, 2), float("nan"), "alpha must be .*, got nan"),
    ],
)
def test_what_it_refuses(codes, centroids, alpha, message):
    with pytest.raises(ValueError, match=message):
        equilibrium_loss(codes, centroids, alpha)
