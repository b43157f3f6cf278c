"""Random views of images for training, made by kornia."""

from typing import Any

import torch
from torch import nn

from ekmfast._arguments import shown
from ekmfast._optional import require
from ekmfast._parameters import POSITIVE, Number, SequenceOf, check_parameters

SHARE = Number(0, 1)
PARAMETERS = {
    "rotation": Number(0, 180),
    "translation": SHARE,
    "scale": SequenceOf(POSITIVE, 2),
    "noise": Number(0),
    "erasing": SHARE,
    "horizontal_flip": SHARE,
}


class Augmentation(nn.Module):
    """Small random changes that do not change the class of a digit or a photo.

    Every image is rotated, shifted and scaled a little. Then noise is added to some images, and a
    small rectangle of some images is erased. Pixels outside the image repeat its border. The random
    numbers come from PyTorch's global generator; `finetune` seeds it during the training.

    Parameters
    ----------
    rotation : float, default=10.0
        Largest rotation either way, in degrees.
    translation : float, default=0.08
        Largest shift either way, as a fraction of the side.
    scale : tuple of two floats, default=(0.9, 1.1)
        Range of the scale.
    noise : float, default=0.03
        Standard deviation of the Gaussian noise that half of the images get.
    erasing : float, default=0.2
        Share of the images that lose a rectangle of 2 to 8 % of their area.
    horizontal_flip : float, default=0.0
        Share of the images that are mirrored. Do not mirror digits; for most photos use 0.5.

    Raises
    ------
    ImportError
        If kornia is not installed.
    TypeError, ValueError
        If a parameter is of the wrong kind or out of its range.

    Examples
    --------
    >>> import torch
    >>> from ekmfast.autoencoder.augmentation import Augmentation
    >>> tuple(Augmentation()(torch.rand(4, 1, 32, 32)).shape)
    (4, 1, 32, 32)
    """

    def __init__(
        self,
        rotation: float = 10.0,
        translation: float = 0.08,
        scale: tuple[float, float] = (0.9, 1.1),
        noise: float = 0.03,
        erasing: float = 0.2,
        horizontal_flip: float = 0.0,
    ) -> None:
        super().__init__()
        checked = check_parameters(locals(), PARAMETERS)
        rotation, translation = checked["rotation"], checked["translation"]
        noise, erasing = checked["noise"], checked["erasing"]
        horizontal_flip = checked["horizontal_flip"]
        low, high = checked["scale"]
        if low > high:
            raise ValueError(f"scale must be (low, high) with low <= high, got {shown(scale)}")
        kornia: Any = require("kornia.augmentation", "torch")
        steps = [
            kornia.RandomAffine(
                rotation, (translation, translation), (low, high), padding_mode="border", p=1.0
            )
        ]
        if horizontal_flip > 0:
            steps.append(kornia.RandomHorizontalFlip(p=horizontal_flip))
        if noise > 0:
            steps.append(kornia.RandomGaussianNoise(std=noise, p=0.5))
        if erasing > 0:
            steps.append(kornia.RandomErasing(scale=(0.02, 0.08), p=erasing))
        self.steps = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Random views of the images.

        Parameters
        ----------
        x : Tensor of shape (N, C, S, S), float32
            Images in [0, 1].

        Returns
        -------
        Tensor of the shape and dtype of ``x``, in [0, 1]
        """
        with torch.no_grad():
            return self.steps(x).clamp(0, 1)
