"""Short texts that identify images, labels, models and functions.

A checkpoint holds them, so that another training does not continue from it.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from logging import Logger
from types import (
    BuiltinMethodType,
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import nn

from ekmfast.autoencoder.images import DatasetImages, Images
from ekmfast.data.image_files import ImageFiles

# Number of images that are in memory at a time.
BATCH = 256
# Types whose values are determined by their repr.
PLAIN = (int, float, complex, bool, str, bytes, type(None), type(...))
# Functions and classes of these libraries, and of Python's own modules, are identified by name and
# version instead of their code.
LIBRARIES = ("kornia", "numpy", "scipy", "sklearn", "PIL", "torch", "torchvision")


def of_images(images: Images | DatasetImages) -> str:
    """Digest of the pixels of all images, or of the bytes of all files of an image folder."""
    if isinstance(images, DatasetImages) and isinstance(images.dataset, ImageFiles):
        return images.dataset.digest()
    digest = hashlib.sha256(f"{len(images)} images".encode())
    starts = range(0, len(images), BATCH)
    parts = [slice(start, start + BATCH) for start in starts]
    for batch in images.batches(parts, torch.device("cpu")):
        digest.update(batch.contiguous().numpy())
    return digest.hexdigest()


def of_labels(labels: torch.Tensor) -> str:
    """Digest of int64 class labels."""
    return hashlib.sha256(labels.numpy()).hexdigest()


def of_model(model: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> str:
    """Digest of a model: its layers, which parameters are trained, and its weights.

    The weights are those in ``state``, or the model's current ones if ``state`` is None.
    """
    trained = [p.requires_grad for p in model.parameters()]
    return _digest((repr(model), trained, dict(model.state_dict() if state is None else state)))


def of_change(change: Any) -> str:
    """Name and digest of a function or object that changes images.

    The digest covers the code and the values that the object holds: its attributes and those of its
    classes, also private ones, closures, defaults, and the globals that the code names. It does not
    cover other modules that the code calls, the code of `LIBRARIES` (only their names and
    versions), and objects that Python cannot inspect, such as generators, open files, and compiled
    objects that cannot be pickled. If an object changes its attributes when it is called, its
    digest changes too.
    """
    if change is None:
        return "None"
    named = change if hasattr(change, "__qualname__") else type(change)
    return f"{named.__qualname__} {_digest(change)[:16]}"


def _digest(value: Any) -> str:
    """Digest of a value and all its parts; cycles, where a value contains itself, are allowed.

    Values are sorted into classes as Moore's algorithm does it with the states of an automaton:
    first by their own descriptions, then repeatedly by the classes of their parts, until the number
    of classes no longer grows. Each value is visited once. The digest depends neither on memory
    addresses nor on whether two values share a part.
    """
    values, labels, parts = [value], [], []
    number = {id(value): 0}
    # The list grows in the loop. It keeps all values alive, so that no id is used twice.
    for one in values:
        label, held, ordered = _described(one)
        inner, texts = [], [label]
        for part in held:
            if type(part) in PLAIN:
                texts.append(repr(part).encode("utf-8", "surrogatepass"))
                continue
            texts.append(b"part")
            if id(part) not in number:
                number[id(part)] = len(values)
                values.append(part)
            inner.append(number[id(part)])
        labels.append(b",".join(texts))
        parts.append((inner, ordered))
    kinds = _ranked(labels)
    n_kinds = 0
    while n_kinds < len(set(kinds)):
        n_kinds = len(set(kinds))
        made_of = [[kinds[i] for i in inner] for inner, _ in parts]
        made_of = [m if o else sorted(m) for m, (_, o) in zip(made_of, parts, strict=True)]
        signatures = [(kind, *held) for kind, held in zip(kinds, made_of, strict=True)]
        kinds = _ranked(signatures)
    digest = hashlib.sha256(str(kinds[0]).encode())
    for signature, label in sorted(set(zip(signatures, labels, strict=True))):
        digest.update(f"{signature} {len(label)} ".encode() + label)
    return digest.hexdigest()


def _ranked(values: list[Any]) -> list[int]:
    rank = {value: i for i, value in enumerate(sorted(set(values)))}
    return [rank[value] for value in values]


def _described(value: Any) -> tuple[bytes, Iterable[Any], bool]:
    """Description of a value without its parts, its parts, and whether their order matters."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    parts: Iterable[Any]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value if value.layout == torch.strided else value.to_dense()
        value = value.resolve_conj().resolve_neg().contiguous()
        content = hashlib.sha256(value.reshape(-1).view(torch.uint8).numpy()).hexdigest()
        return f"{name} {value.dtype} {tuple(value.shape)} {content}".encode(), (), True
    if kind in (np.ndarray, np.memmap) and not value.dtype.hasobject:
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{name} {value.dtype!r} {value.shape} {content}".encode(), (), True
    if isinstance(value, CodeType):
        parts = (value.co_code, value.co_exceptiontable, *value.co_names, *value.co_consts)
    elif isinstance(value, ModuleType | Logger):
        parts = (value.__name__ if isinstance(value, ModuleType) else value.name,)
    elif isinstance(value, FunctionType):
        version = _version(value)
        code = (value.__code__, _globals(value)) if version is None else (value.__module__, version)
        held = (value.__defaults__, value.__kwdefaults__, vars(value), *(value.__closure__ or ()))
        parts = (value.__qualname__, *code, *held)
    elif isinstance(value, CellType):
        parts = ()
        with suppress(ValueError):  # raised by an empty cell
            parts = (value.cell_contents,)
    elif isinstance(value, type):
        parts = (value.__qualname__, *_of_class(value))
    elif isinstance(value, staticmethod | classmethod):
        parts = (value.__func__,)
    elif isinstance(value, property):
        parts = (value.fget, value.fset)
    elif isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
    elif isinstance(value, MethodType):
        parts = (value.__func__, value.__self__)
    elif isinstance(value, BuiltinMethodType | MethodWrapperType):
        parts = (value.__name__, value.__self__)
    elif isinstance(value, set | frozenset):
        plain_last = sorted(value, key=lambda v: repr(v) if type(v) in PLAIN else "")
        return name.encode(), plain_last, False
    elif isinstance(value, Enum):
        parts = (value.name, value.value, kind)
    else:
        parts = [kind, *_held(value)]
        if isinstance(value, dict):
            parts += [part for item in value.items() for part in item]
        elif isinstance(value, list | tuple):
            parts += value
        elif len(parts) == 1 or any(_is_built_in(c) for c in kind.__mro__[:-1]):
            parts.append(_pickled(value))
    return name.encode(), parts, True


def _held(value: Any) -> list[Any]:
    """Attributes of an object."""
    own = dict(getattr(value, "__dict__", {}))
    classes = type(value).__mro__
    # kornia's objects store the random numbers of their last call in private attributes, which
    # are left out.
    of_kornia = [c for c in classes if c.__module__.split(".")[0] == "kornia"]
    methods = [m for c in of_kornia for m in vars(c).values() if isinstance(m, FunctionType)]
    private = {n for m in methods for n in m.__code__.co_names if n.startswith("_")}
    left_out = private - {"_parameters", "_buffers", "_modules"}
    held: list[Any] = [{k: v for k, v in own.items() if k not in left_out}] if own else []
    for c in classes:
        slots = vars(c).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            mangled = f"_{c.__name__.lstrip('_')}{slot}"
            is_mangled = slot.startswith("__") and not slot.endswith("__")
            if slot not in ("__dict__", "__weakref__"):
                held += [slot, getattr(value, mangled if is_mangled else slot, None)]
    if isinstance(value, nn.Module):
        held.append(value.extra_repr())
    if isinstance(value, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        held.append(value.code)
    if isinstance(value, torch.jit.ScriptModule):
        held.append(dict(value.state_dict()))
    return held


def _of_class(kind: type) -> Iterable[Any]:
    """Attributes and methods of a class and its base classes."""
    for c in kind.__mro__:
        if version := _version(c):
            yield from (c.__module__, c.__qualname__, version)
            continue
        for name, value in vars(c).items():
            is_code = isinstance(value, FunctionType | staticmethod | classmethod | property)
            if is_code or not (name.startswith("__") and name.endswith("__")):
                yield from (name, value)


def _pickled(value: Any) -> Any:
    """Parts of a built-in or compiled object as pickle takes them, or else its repr, no address."""
    shown = getattr(value, "__qualname__", None) or repr(value).split(" at 0x")[0]
    try:
        return shown if type(value) in PLAIN else [_listed(p) for p in value.__reduce_ex__(4)]
    except Exception:  # different types raise different exceptions
        return shown


def _listed(part: Any) -> Any:
    # pickle gives an iterator over the items of, for instance, a deque.
    return list(part) if isinstance(part, Iterator) else part


def _version(value: Any) -> str | None:
    """Version of the library that defines a function or class; None if it is not in `LIBRARIES`."""
    package = (value.__module__ or "builtins").split(".")[0]
    if package == "builtins":  # functions and classes made by `exec` name this module too
        return "Python" if isinstance(value, type) and _is_built_in(value) else None
    if package in sys.stdlib_module_names:
        return "Python"
    if package not in LIBRARIES:
        return None
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _is_built_in(kind: type) -> bool:
    """Whether C code defines the class; CPython sets ``Py_TPFLAGS_HEAPTYPE`` for other classes."""
    return not kind.__flags__ & 1 << 9


def _globals(function: FunctionType) -> dict[str, Any]:
    """Globals that a function's code names, without modules and without imported functions."""
    used = {}
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        value = function.__globals__[name]
        of_other = getattr(value, "__module__", None) != function.__module__
        if not isinstance(value, ModuleType) and not (
            isinstance(value, type | FunctionType) and of_other
        ):
            used[name] = value
    return used


def _names(code: CodeType) -> set[str]:
    """Names in code, and in functions, lambdas and comprehensions within it."""
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inner)
