"""Functions that take the path of a file name this argument if it is something else."""

from __future__ import annotations

import numpy as np
import pytest

from ekmfast import EKMeans, blocks, export_onnx, load, save
from ekmfast.data.tables import read_table

X = np.array([[0.0], [1.0], [9.0], [10.0]])
FITTED = EKMeans(2, random_state=0).fit(X)
FUNCTIONS = {
    "save": lambda path: save(FITTED, path),
    "load": load,
    "export_onnx": lambda path: export_onnx(FITTED, path),
    "from_npy": blocks.from_npy,
    "read_table": read_table,
    "fit": lambda path: FITTED.fit(X, checkpoint=path),
}


@pytest.mark.parametrize("given", [3, X, FITTED, ["a"]], ids=["int", "rows", "model", "list"])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_no_path_is_named(function, given):
    with pytest.raises(TypeError, match=r"^(path|checkpoint) must be a str or a path, got "):
        function(given)


def test_what_is_no_path_of_parquet_or_zarr_is_named():
    with pytest.raises(TypeError, match="array must be a Zarr array or the path of one, got None"):
        blocks.from_zarr(None)
    pytest.importorskip("pyarrow")
    with pytest.raises(TypeError, match="path must be a str or a path, got None"):
        blocks.from_parquet(None)
