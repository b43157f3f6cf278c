"""The contrastive loss: two views of an image are to have like codes, other images unlike ones."""

import torch
from torch.nn.functional import cross_entropy, normalize


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy of n pairs of codes, (n, D) each.

    With u the 2 n codes at length 1 and s_ij = u_i . u_j / temperature it is the mean over i of
    -log(exp(s_ij) / sum_{m != i} exp(s_im)), where j is the other view of i's image.

    References
    ----------
    T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A Simple Framework for Contrastive Learning of
    Visual Representations", ICML 2020, Eq. 1.
    """
    codes = normalize(torch.cat([first, second]))
    likeness = codes @ codes.T / temperature
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    likeness = likeness.masked_fill(itself, -torch.inf)
    other_view = torch.arange(len(codes), device=codes.device).roll(len(first))
    return cross_entropy(likeness, other_view)
