"""Random views of images for training, made by kornia."""

from typing import Any

import torch
from torch import nn

from ekmfast._arguments import number, shown
from ekmfast._optional import require


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
    ValueError
        If a parameter is out of its range.

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
        rotation = number("rotation", rotation, 0, 180)
        translation = number("translation", translation, 0, 1)
        noise = number("noise", noise, 0)
        erasing = number("erasing", erasing, 0, 1)
        horizontal_flip = number("horizontal_flip", horizontal_flip, 0, 1)
        try:
            low, high = (number("scale", end, 0, without_least=True) for end in scale)
        except (TypeError, ValueError):
            low, high = 1.0, 0.0
        if low > high:
            raise ValueError(f"scale={shown(scale)}: must be (low, high) with 0 < low <= high")
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
