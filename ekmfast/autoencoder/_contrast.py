"""The contrastive loss: small if two views of an image have similar codes, and others do not."""

import torch
from torch.nn.functional import cross_entropy, normalize


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy of n pairs of codes, (n, D) each.

    Let u_1, ..., u_2n be all codes, scaled to length 1, and s_ij = u_i . u_j / temperature. The
    loss is the mean over i of -log(exp(s_ij) / sum_{m != i} exp(s_im)), where j is the other view
    of i's image.

    References
    ----------
    T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A Simple Framework for Contrastive Learning of
    Visual Representations", ICML 2020, Eq. 1.
    """
    codes = normalize(torch.cat([first, second]))
    similarity = codes @ codes.T / temperature
    diagonal = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    similarity = similarity.masked_fill(diagonal, -torch.inf)
    other_view = torch.arange(len(codes), device=codes.device).roll(len(first))
    return cross_entropy(similarity, other_view)
