"""What a training is made of, as short texts by which another training is told from it."""

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

# Images that are held in memory at once.
BATCH = 256
# Values that their texts tell whole.
PLAIN = (int, float, complex, bool, str, bytes, type(None), type(...))
# Their code is not looked at; neither is that of Python's own modules.
LIBRARIES = ("kornia", "numpy", "scipy", "sklearn", "PIL", "torch", "torchvision")


def of_images(images: Images | DatasetImages) -> str:
    """Of every image as a model sees it; of a folder's files, as they are on the disk."""
    if isinstance(images, DatasetImages) and isinstance(images.dataset, ImageFiles):
        return images.dataset.digest()
    digest = hashlib.sha256(f"{len(images)} images".encode())
    starts = range(0, len(images), BATCH)
    parts = [slice(start, start + BATCH) for start in starts]
    for batch in images.batches(parts, torch.device("cpu")):
        digest.update(batch.contiguous().numpy())
    return digest.hexdigest()


def of_labels(labels: torch.Tensor) -> str:
    """Of classes, int64."""
    return hashlib.sha256(labels.numpy()).hexdigest()


def of_model(model: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> str:
    """Of the layers, of what is trained of them, and of the weights: its own, or ``state``."""
    trained = [p.requires_grad for p in model.parameters()]
    return _digest((repr(model), trained, dict(model.state_dict() if state is None else state)))


def of_change(change: Any) -> str:
    """Of a function or object that changes images: its name, its code and the values it holds.

    These are attributes, also of its classes and private ones, closures, defaults, and the globals
    that the code names. Not seen are: other modules that it calls; the code of `LIBRARIES`, which
    are known by their names and versions; and what Python cannot look into, such as generators,
    open files and compiled objects that cannot be pickled. An object that notes something on
    itself when it is used is another one afterwards.
    """
    if change is None:
        return "None"
    named = change if hasattr(change, "__qualname__") else type(change)
    return f"{named.__qualname__} {_digest(change)[:16]}"


def _digest(value: Any) -> str:
    """Of a value and all that it is made of, which may hold itself.

    Values are told apart as the states of an automaton are (Moore): first by what they are alone,
    then by which kinds of parts they have, until that separates no more. Each value is visited
    once, and neither its place in memory nor what it shares parts with is of consequence.
    """
    values, labels, parts = [value], [], []
    number = {id(value): 0}
    for one in values:  # which grows; so all stay alive, and no id is given twice
        label, held, ordered = _described(one)
        inner, told = [], [label]
        for part in held:
            if type(part) in PLAIN:
                told.append(repr(part).encode("utf-8", "surrogatepass"))
                continue
            told.append(b"part")
            if id(part) not in number:
                number[id(part)] = len(values)
                values.append(part)
            inner.append(number[id(part)])
        labels.append(b",".join(told))
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
    """What a value is alone, what it is made of, and whether that has an order."""
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
        with suppress(ValueError):  # where it is empty
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
    # kornia's note the random numbers that they drew last.
    of_kornia = [c for c in classes if c.__module__.split(".")[0] == "kornia"]
    methods = [m for c in of_kornia for m in vars(c).values() if isinstance(m, FunctionType)]
    noted = {n for m in methods for n in m.__code__.co_names if n.startswith("_")}
    kept = noted - {"_parameters", "_buffers", "_modules"}
    held: list[Any] = [{k: v for k, v in own.items() if k not in kept}] if own else []
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
    """What a class and those that it comes from hold."""
    for c in kind.__mro__:
        if version := _version(c):
            yield from (c.__module__, c.__qualname__, version)
            continue
        for name, value in vars(c).items():
            is_code = isinstance(value, FunctionType | staticmethod | classmethod | property)
            if is_code or not (name.startswith("__") and name.endswith("__")):
                yield from (name, value)


def _pickled(value: Any) -> Any:
    """What is built in or compiled, as it would be pickled; else its text, without its address."""
    shown = getattr(value, "__qualname__", None) or repr(value).split(" at 0x")[0]
    try:
        return shown if type(value) in PLAIN else [_listed(p) for p in value.__reduce_ex__(4)]
    except Exception:  # each kind has a different one
        return shown


def _listed(part: Any) -> Any:
    # Such as what a deque holds.
    return list(part) if isinstance(part, Iterator) else part


def _version(value: Any) -> str | None:
    """Version of the library that a function or class is of; None for those of others."""
    package = (value.__module__ or "builtins").split(".")[0]
    if package == "builtins":  # so is also what was made by `exec`
        return "Python" if isinstance(value, type) and _is_built_in(value) else None
    if package in sys.stdlib_module_names:
        return "Python"
    if package not in LIBRARIES:
        return None
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _is_built_in(kind: type) -> bool:
    """Whether no Python code made the class, by the flag of CPython's ``Py_TPFLAGS_HEAPTYPE``."""
    return not kind.__flags__ & 1 << 9


def _globals(function: FunctionType) -> dict[str, Any]:
    """What a function finds by names, but for modules, and functions and classes of others."""
    found = {}
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        value = function.__globals__[name]
        of_other = getattr(value, "__module__", None) != function.__module__
        if not isinstance(value, ModuleType) and not (
            isinstance(value, type | FunctionType) and of_other
        ):
            found[name] = value
    return found


def _names(code: CodeType) -> set[str]:
    """Names in code, and in functions, lambdas and comprehensions within it."""
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inner)
