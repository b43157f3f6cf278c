"""Save estimators to files without pickle, so that reading a file cannot run code.

A file is a ZIP archive of uncompressed members: ``header.json``, and an ``.npy`` for each array, so
that `numpy.load` opens it too. The header holds the name of the class, the constructor's parameters
and the fitted attributes. Values of types that JSON lacks are objects with one key:

    {"array": member}    numbers, booleans or strings; a NumPy scalar is an array of shape ()
    {"strings": [...]}   array of dtype object that holds str, such as ``feature_names_in_``
    {"fields": {...}}    a dataclass, whose type is the annotation of the estimator's attribute
    {"estimator": {...}} another estimator: its class, parameters and attributes
    {"autoencoder": {...}} a model of ekmfast.autoencoder, see `ekmfast.persist.detectors`

A pipeline also has ``steps``, which are pairs of a name and an estimator.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import json
import os
import sys
import typing
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file
from ekmfast._parameters import PATH
from ekmfast._version import __version__
from ekmfast.persist.detectors import (
    autoencoder_of,
    check_of_features,
    check_of_images,
    is_autoencoder,
    parts_of,
)
from ekmfast.persist.state import check_centroids, check_mixture, check_scaler
from ekmfast.rows.device import is_cuda_array, to_host

__all__ = ["load", "save"]

FORMAT = "ekmfast estimator"
# Raise it only if older versions would misinterpret a file. A class or parameter that they merely
# do not know is refused anyway, with an error that names it.
FORMAT_VERSION = 1
HEADER = "header.json"
CLASSES = (
    "EKMeans",
    "MiniBatchEKMeans",
    "SemiSupervisedEKMeans",
    "HardKMeans",
    "FuzzyCMeans",
    "MaximumEntropyKMeans",
)


class Kind(typing.NamedTuple):
    """The module of a class, and the function that checks an instance read from a file."""

    module: str
    check: Callable[[Any], None]


# All classes that a file can hold, by name.
KINDS = {name: Kind("ekmfast", check_centroids) for name in CLASSES}
KINDS["EquilibriumMixture"] = Kind("ekmfast", check_mixture)
KINDS["EKMeansDetector"] = Kind("ekmfast.anomaly", check_of_features)
KINDS["AutoencoderDetector"] = Kind("ekmfast.anomaly", check_of_images)
KINDS["StandardScaler"] = Kind("sklearn.preprocessing", check_scaler)
PIPELINE = "Pipeline"
PLAIN = (bool, int, float, str, type(None))

Arrays = dict[str, NDArray[Any]]


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write an estimator, fitted or not, to a file from which `load` reads it.

    A temporary file is written and then renamed. If this fails, for instance on a full disk,
    ``path`` is unchanged. The same estimator gives the same bytes.

    Parameters
    ----------
    estimator : EKMeans or another estimator or detector of ekmfast, or a Pipeline
        The estimator, which must not be of a subclass. Parameters that are lists or data frames are
        read back as arrays. Metadata requests and callbacks are not saved, but ``set_output`` is. A
        `sklearn.pipeline.Pipeline` may have a `sklearn.preprocessing.StandardScaler` before the
        estimator, so that the loaded model takes rows in their original units; its ``memory`` and
        ``verbose`` are not saved. Detectors are those of `ekmfast.anomaly`; an
        ``AutoencoderDetector`` is loaded onto the CPU and without its ``history_``.
    path : str or os.PathLike
        The file to write. No extension is added to its name.

    Raises
    ------
    TypeError
        If ``estimator`` is not one of ekmfast's, or if a parameter or attribute is not a number,
        string, boolean, None or an array of these, but for instance a callable ``init`` or a
        ``RandomState`` instance.
    OSError
        If the file cannot be written.

    See Also
    --------
    load

    Examples
    --------
    >>> import os, tempfile
    >>> from ekmfast import EKMeans, load, save
    >>> model = EKMeans(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, os.path.join(folder, "model.npz"))
    ...     again = load(os.path.join(folder, "model.npz"))
    >>> bool((again.predict([[2.0], [8.0]]) == model.predict([[2.0], [8.0]])).all())
    True

    A pipeline that scales the columns is saved in the same way:

    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(StandardScaler(), EKMeans(2, random_state=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model.fit([[0.0], [1.0], [9.0], [10.0]]), os.path.join(folder, "model.npz"))
    ...     again = load(os.path.join(folder, "model.npz"))
    >>> bool((again.predict([[2.0], [8.0]]) == model.predict([[2.0], [8.0]])).all())
    True
    """
    path = PATH.check("path", path)
    arrays: Arrays = {}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ekmfast": __version__,
        **_describe(estimator, "", arrays),
    }
    replace_file(path, lambda file: _write(file, json.dumps(header, indent=1), arrays))


def _describe(estimator: Any, prefix: str, arrays: Arrays) -> dict[str, Any]:
    """The header of an estimator; its arrays are added to ``arrays``."""
    name = type(estimator).__name__
    if name == PIPELINE and type(estimator) is _class(name) and not prefix:
        steps = [(key, _describe(step, f"steps/{key}/", arrays)) for key, step in estimator.steps]
        return {"class": name, "parameters": {}, "attributes": {}, "output": None, "steps": steps}
    if name not in KINDS or _class(name) is not type(estimator):
        hint = ""
        if hasattr(estimator, "to_local"):
            hint = "; save what its to_local() returns"
            name = "ekmfast.dask." + name
        raise TypeError(
            f"estimator must be one of {', '.join(c for c in KINDS if _class(c))}, or a Pipeline "
            f"of them, got {name}{hint}"
        )
    return {
        "class": name,
        "parameters": {
            key: _encode(_as_array(value), f"parameter {key}", f"{prefix}parameters/{key}", arrays)
            for key, value in estimator.get_params(deep=False).items()
        },
        "attributes": {
            key: _encode(value, f"attribute {key}", f"{prefix}attributes/{key}", arrays)
            for key, value in vars(estimator).items()
            # A model that was given as a parameter is not saved again as an attribute.
            if _is_state(type(estimator), key)
            and not (key == "autoencoder_" and value is estimator.model)
        },
        "output": getattr(estimator, "_sklearn_output_config", {}).get("transform"),
    }


def load(path: str | os.PathLike[str]) -> Any:
    """Read an estimator that `save` wrote; it predicts the same as the saved one, bit for bit.

    Reading runs no code from the file, which holds only the name of a class of ekmfast, numbers and
    strings. There is one exception: an ``AutoencoderDetector`` of an exported model contains a
    TorchScript program, which runs when images are scored, so load such a file only from sources
    that you trust. Parameters that the file of an older version lacks have their defaults.

    Parameters
    ----------
    path : str or os.PathLike
        The file to read.

    Returns
    -------
    EKMeans or another estimator of ekmfast, or a Pipeline

    Raises
    ------
    ValueError
        If the file was not written by `save`, is damaged or truncated, has a newer format, or holds
        a class, parameter or attribute that this version does not know, or arrays that do not match
        each other.
    OSError
        If the file cannot be read.

    See Also
    --------
    save

    Examples
    --------
    >>> import os, tempfile
    >>> from ekmfast import EKMeans, load, save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(EKMeans(n_clusters=3), os.path.join(folder, "model.npz"))
    ...     load(os.path.join(folder, "model.npz"))
    EKMeans(n_clusters=3)
    """
    path = PATH.check("path", path)
    with open(path, "rb") as file:
        try:
            return _read(file)
        # For damaged files, zipfile, json and numpy raise errors of many types.
        except Exception as error:
            raise ValueError(
                f"{str(path)!r} cannot be loaded, it may be damaged: {error}"
            ) from None


def _class(name: str) -> Any:
    """The class with a public name; None if the installed version does not have it."""
    module = "sklearn.pipeline" if name == PIPELINE else KINDS[name].module
    return getattr(importlib.import_module(module), name, None)


def _is_state(cls: type, name: str) -> bool:
    listed: tuple[str, ...] = getattr(cls, "_saved_state", ())
    unsaved: tuple[str, ...] = getattr(cls, "_unsaved_state", ())
    is_public = name.endswith("_") and not name.startswith("__") and name not in unsaved
    return name in listed or is_public


def _dataclass(cls: type, attribute: str) -> Any:
    """The dataclass in the annotation of the attribute, or None. The file cannot choose it."""
    for base in cls.__mro__:
        hint = inspect.get_annotations(base).get(attribute)
        if isinstance(hint, str):
            hint = getattr(sys.modules[base.__module__], hint, None)
        if dataclasses.is_dataclass(hint):
            return hint
    return None


def _as_array(value: Any) -> Any:
    is_array_like = isinstance(value, (list, tuple)) or hasattr(value, "__array__")
    return np.asarray(value) if is_array_like and not isinstance(value, np.generic) else value


def _encode(value: Any, what: str, member: str, arrays: Arrays) -> Any:
    if is_cuda_array(value):  # labels of rows on a GPU
        value = to_host(value)
    # NumPy's scalars come before Python's: float64 is a float too, and JSON would lose its type.
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype == object and array.ndim == 1 and all(type(s) is str for s in array):
            return {"strings": array.tolist()}
        if array.dtype.kind in "biufU":
            arrays[member] = array
            return {"array": member}
    elif isinstance(value, PLAIN):
        return value
    elif type(value).__name__ in KINDS:
        return {"estimator": _describe(value, f"{member}/", arrays)}
    elif is_autoencoder(value):
        parts = {
            key: _encode(part, f"{what}.{key}", f"{member}/{key}", arrays)
            for key, part in parts_of(value).items()
        }
        return {"autoencoder": parts}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _encode(
                getattr(value, field.name),
                f"{what}.{field.name}",
                f"{member}/{field.name}",
                arrays,
            )
            for field in dataclasses.fields(value)
        }
        return {"fields": fields}
    kind = f"array of dtype {value.dtype}" if isinstance(value, np.ndarray) else repr(value)
    raise TypeError(
        f"{what} is {kind}: only numbers, strings, booleans, None and arrays of them are saved"
    )


def _write(file: typing.IO[bytes], header: str, arrays: Arrays) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # A ZipInfo has a fixed date; writing by name would store the current time.
        archive.writestr(zipfile.ZipInfo(HEADER), header)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read(file: typing.BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        # `save` does not compress. Refusing compressed members also prevents that a small file
        # needs much memory.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("it is not a file of ekmfast.save")
        names = set(archive.namelist())
        header = json.loads(archive.read(HEADER)) if HEADER in names else None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("it is not a file of ekmfast.save")
        version = header.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ValueError(
                f"it is of format {version!r}, written by ekmfast {header.get('ekmfast')}: this is "
                f"ekmfast {__version__}, which reads formats up to {FORMAT_VERSION}"
            )
        # Members are read as a whole, so that zipfile verifies their checksums.
        arrays = {
            name.removesuffix(".npy"): np.lib.format.read_array(
                io.BytesIO(archive.read(name)), allow_pickle=False
            )
            for name in names - {HEADER}
        }

    return _build(header, arrays)


def _build(described: dict[str, Any], arrays: Arrays) -> Any:
    """Inverse of `_describe`."""
    name = described["class"]
    if name == PIPELINE:
        steps = [(str(key), _build(step, arrays)) for key, step in described["steps"]]
        sizes = {getattr(step, "n_features_in_", None) for _, step in steps} - {None}
        if not steps or len(sizes) > 1 or any(type(step).__name__ == name for _, step in steps):
            raise ValueError("the steps of its Pipeline do not go together")
        return _class(name)(steps)
    cls = _class(name) if isinstance(name, str) and name in KINDS else None
    if cls is None:
        raise ValueError(f"it holds the class {name!r}, which ekmfast {__version__} has not")
    parameters = {key: _decode(value, arrays) for key, value in described["parameters"].items()}
    unknown = sorted(set(parameters) - set(cls._get_param_names()))
    if unknown:
        raise ValueError(f"{name} of ekmfast {__version__} has no parameters {', '.join(unknown)}")
    attributes = described["attributes"]
    unknown = sorted(key for key in attributes if not _is_state(cls, key))
    if unknown:
        raise ValueError(f"{name} has no attributes {', '.join(unknown)}")
    estimator = cls(**parameters)
    # Written to the dictionary, since setattr would call a property of the same name.
    vars(estimator).update(
        (key, _decode(value, arrays, _dataclass(cls, key))) for key, value in attributes.items()
    )
    KINDS[name].check(estimator)
    if described.get("output") is not None:
        estimator.set_output(transform=described["output"])
    return estimator


def _decode(value: Any, arrays: Arrays, record: Any = None) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "array":
            array = arrays[content]
            if array.dtype.kind not in "biufU":
                raise ValueError(f"array {content} has dtype {array.dtype}")
            # Another program may have written it in another byte order or in Fortran order.
            return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)[()]
        if kind == "strings" and all(isinstance(s, str) for s in content):
            return np.array(content, object)
        if kind == "estimator" and content.get("class") != PIPELINE:
            return _build(content, arrays)
        if kind == "autoencoder":
            return autoencoder_of({key: _decode(part, arrays) for key, part in content.items()})
        if kind == "fields" and record is not None:
            return record(**{key: _decode(item, arrays) for key, item in content.items()})
    raise ValueError(f"it holds the value {value!r:.60}, which ekmfast {__version__} cannot read")
