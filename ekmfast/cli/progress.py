"""A progress bar that counts the images that are read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray


def with_progress(files: Any, arguments: argparse.Namespace, passes: int = 1) -> Any:
    if arguments.quiet:
        return files
    from ekmfast._optional import require

    tqdm: Any = require("tqdm", "torch").tqdm
    return _CountedImages(
        files, tqdm(total=passes * len(files), desc=arguments.command, unit="image")
    )


class _CountedImages:
    """Images that advance a progress bar when they are read."""

    def __init__(self, files: Any, bar: Any) -> None:
        self.files, self.bar = files, bar
        self.image_size, self.channels = files.image_size, files.channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> NDArray[Any]:
        image: NDArray[Any] = self.files[i]
        return image

    def __getitems__(self, rows: Sequence[int]) -> NDArray[Any]:
        images: NDArray[Any] = self.files.__getitems__(rows)
        self.bar.update(len(images))
        if self.bar.n >= self.bar.total:
            self.bar.close()
        return images
