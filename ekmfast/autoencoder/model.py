"""The convolutional autoencoder with a class predictor on its code."""

from collections import OrderedDict

import torch
from torch import nn

from ekmfast._parameters import BOOLEAN, COUNT, IMAGE_SIZE, POSITIVE, Kind, Number, check_parameters

_MIN_UNITS = 8

PARAMETERS = {
    "image_size": IMAGE_SIZE,
    "in_channels": COUNT,
    "latent_dim": COUNT,
    "n_classes": COUNT,
    "width": POSITIVE,
    "dropout": Number(0, 1, open_high=True),
    "normalize_codes": BOOLEAN,
}


class ConvAutoencoder(nn.Module):
    """Convolutional autoencoder of square images, with a class predictor on the code.

    The encoder is four convolutions (kernel 4, stride 2), each with batch normalisation and
    ReLU, followed by a linear layer. The decoder is a linear layer, four transposed convolutions
    and a sigmoid. The predictor is a perceptron with two hidden layers. With the default parameters
    the channels are 3-128-128-256-512 in the encoder and 512-256-128-64-3 in the decoder, the code
    has 1,024 features, and the hidden layers have 1,024 and 256 units.

    Parameters
    ----------
    image_size : int, default=64
        Height and width of the images, a multiple of 16.
    in_channels : int, default=3
        Channels of the images.
    latent_dim : int, default=1024
        Features of the code, and units of the predictor's first hidden layer.
    n_classes : int, default=10
        Number of classes of the predictor.
    width : float, default=1.0
        Factor by which the channels of the convolutions and the units of the predictor's second
        hidden layer are multiplied; each is at least 8.
    dropout : float, default=0.3
        Dropout of the predictor, in [0, 1).
    normalize_codes : bool, default=False
        Whether the encoder ends in a batch normalisation without weights, which gives each
        feature of the code mean 0 and variance 1. `DeepEKM` needs it, because without it the
        clustering loss would shrink all codes to a point.

    Attributes
    ----------
    encoder, decoder, predictor : torch.nn.Sequential
        The three parts.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind or out of its range.

    Examples
    --------
    >>> import torch
    >>> from ekmfast.autoencoder import ConvAutoencoder
    >>> model = ConvAutoencoder(image_size=32, in_channels=1, latent_dim=16, width=0.125)
    >>> x_prime, y, z = model(torch.rand(5, 1, 32, 32))
    >>> tuple(x_prime.shape), tuple(y.shape), tuple(z.shape)
    ((5, 1, 32, 32), (5, 10), (5, 16))
    """

    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        latent_dim: int = 1024,
        n_classes: int = 10,
        width: float = 1.0,
        dropout: float = 0.3,
        normalize_codes: bool = False,
    ) -> None:
        super().__init__()
        checked = check_parameters(locals(), PARAMETERS)
        self.image_size: int = checked["image_size"]
        self.in_channels: int = checked["in_channels"]
        self.latent_dim: int = checked["latent_dim"]
        self.n_classes: int = checked["n_classes"]
        self.width: float = checked["width"]
        self.dropout: float = checked["dropout"]
        self.normalize_codes: bool = normalize_codes

        def scaled(units: int) -> int:
            return max(_MIN_UNITS, round(units * self.width))

        down = [self.in_channels, scaled(128), scaled(128), scaled(256), scaled(512)]
        up = [scaled(512), scaled(256), scaled(128), scaled(64), self.in_channels]
        side = self.image_size // 16
        flat = down[-1] * side * side

        encoder: list[tuple[str, nn.Module]] = []
        for i in range(4):
            encoder += [
                (f"conv{i + 1}", nn.Conv2d(down[i], down[i + 1], 4, 2, 1)),
                (f"norm{i + 1}", nn.BatchNorm2d(down[i + 1])),
                (f"relu{i + 1}", nn.ReLU()),
            ]
        encoder += [("flatten", nn.Flatten()), ("linear", nn.Linear(flat, self.latent_dim))]
        if normalize_codes:
            encoder.append(("code_norm", nn.BatchNorm1d(self.latent_dim, affine=False)))
        self.encoder: nn.Sequential = nn.Sequential(OrderedDict(encoder))

        decoder: list[tuple[str, nn.Module]] = [
            ("linear", nn.Linear(self.latent_dim, flat)),
            ("unflatten", nn.Unflatten(1, (up[0], side, side))),
        ]
        for i in range(4):
            decoder.append((f"conv{i + 1}", nn.ConvTranspose2d(up[i], up[i + 1], 4, 2, 1)))
            if i < 3:
                decoder += [
                    (f"norm{i + 1}", nn.BatchNorm2d(up[i + 1])),
                    (f"relu{i + 1}", nn.ReLU()),
                ]
        decoder.append(("sigmoid", nn.Sigmoid()))
        self.decoder: nn.Sequential = nn.Sequential(OrderedDict(decoder))

        hidden = scaled(256)
        self.predictor: nn.Sequential = nn.Sequential(
            nn.Linear(self.latent_dim, self.latent_dim),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.latent_dim, hidden),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(hidden, self.n_classes),
        )

    @torch.jit.export  # type: ignore[untyped-decorator]
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Code of each image.

        Parameters
        ----------
        x : Tensor of shape (N, in_channels, image_size, image_size), float32
            Images in [0, 1].

        Returns
        -------
        Tensor of shape (N, latent_dim)

        Raises
        ------
        ValueError
            If ``x`` has another shape.
        """
        c, s = self.in_channels, self.image_size
        if x.dim() != 4 or x.size(1) != c or x.size(2) != s or x.size(3) != s:
            raise ValueError(f"x has shape {list(x.shape)}: must be (N, {c}, {s}, {s})")
        return self.encoder(x)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Image of each code.

        Parameters
        ----------
        z : Tensor of shape (N, latent_dim), float32
            Codes.

        Returns
        -------
        Tensor of shape (N, in_channels, image_size, image_size), in [0, 1]

        Raises
        ------
        ValueError
            If ``z`` has another shape.
        """
        if z.dim() != 2 or z.size(1) != self.latent_dim:
            raise ValueError(f"z has shape {list(z.shape)}: must be (N, {self.latent_dim})")
        return self.decoder(z)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction, class logits and code of each image.

        Parameters
        ----------
        x : Tensor of shape (N, in_channels, image_size, image_size), float32
            Images in [0, 1].

        Returns
        -------
        x_prime : Tensor of the shape of ``x``
        y : Tensor of shape (N, n_classes)
        z : Tensor of shape (N, latent_dim)
        """
        z = self.encode(x)
        return self.decode(z), self.predictor(z), z


MODEL = Kind(lambda value: isinstance(value, ConvAutoencoder), "a ConvAutoencoder")
