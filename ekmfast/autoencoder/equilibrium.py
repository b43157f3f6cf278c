"""The objective of equilibrium k-means as a differentiable loss of codes and centroids."""

import torch

from ekmfast._parameters import POSITIVE, Kind

TENSOR = Kind(lambda value: isinstance(value, torch.Tensor), "a tensor")


def equilibrium_loss(
    codes: torch.Tensor, centroids: torch.Tensor, alpha: float | torch.Tensor
) -> torch.Tensor:
    """Objective of equilibrium k-means, divided by the number of codes; differentiable.

    With d_kn = 1/2 ||z_n - c_k||^2 and p_kn = softmax_k(-alpha d_kn) it is

        J / N = 1/N sum_n sum_k p_kn d_kn.

    Its derivative with respect to d_kn is w_kn / N, with w_kn the weight of Eq. 38. So the gradient
    with respect to a code z_n is 1/N sum_k w_kn (z_n - c_k). Gradient descent moves the code
    towards centroids with positive weights and away from those with negative weights.

    Parameters
    ----------
    codes : Tensor of shape (N, D), floating
    centroids : Tensor of shape (K, D), of the same dtype and device
    alpha : float or Tensor of shape ()
        Sharpness of the memberships, > 0 and finite. It is a constant for the gradient.

    Returns
    -------
    Tensor of shape ()

    Raises
    ------
    TypeError
        If ``codes`` or ``centroids`` is no tensor, or ``alpha`` no number.
    ValueError
        If the shapes do not agree, there are no codes, or ``alpha`` is not positive and finite.

    References
    ----------
    Y. He, "Imbalanced Data Clustering using Equilibrium K-Means", arXiv 2402.14490.

    Examples
    --------
    >>> import torch
    >>> from ekmfast.autoencoder import equilibrium_loss
    >>> codes = torch.tensor([[0.0], [1.0]], requires_grad=True)
    >>> loss = equilibrium_loss(codes, torch.tensor([[0.0], [4.0]]), alpha=2.0)
    >>> loss.backward()
    >>> codes.grad[1] > 0  # descent moves the code towards the centroid at 0
    tensor([True])
    """
    for name, value in (("codes", codes), ("centroids", centroids)):
        TENSOR.check(name, value)
    if codes.dim() != 2 or centroids.dim() != 2 or codes.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"codes has shape {tuple(codes.shape)}, centroids {tuple(centroids.shape)}: must be "
            "(N, D) and (K, D)"
        )
    if not len(codes) or not len(centroids):
        raise ValueError(f"{len(codes)} codes, {len(centroids)} centroids: must be at least one")
    if isinstance(alpha, torch.Tensor) and alpha.numel() == 1:
        alpha = alpha.item()
    sharpness: float = POSITIVE.check("alpha", alpha)
    # Subtracting the same point from codes and centroids does not change the loss, but keeps the
    # expanded form of the distance accurate for codes far from the origin.
    point = centroids.detach().mean(dim=0)
    z, c = codes - point, centroids - point
    d = 0.5 * ((z * z).sum(1, keepdim=True) + (c * c).sum(1)) - z @ c.T
    return (torch.softmax(-sharpness * d, dim=1) * d).sum(1).mean()
