"""Which subpackage may import from which, and which names are private.

Subpackages and top-level modules are called rooms here. A new room needs a row in the table below;
docs/architecture.md draws the same table.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ekmfast"

# Modules that every room may import, and that import no room.
FLOOR = {"_arguments", "_core", "_files", "_optional", "_parameters", "_reference", "_version"}
# The other rooms that each room may import, in addition to the floor.
ROOMS = {
    "rows": set(),
    "kernels": {"rows"},
    "fit": {"rows"},
    "metrics": {"rows"},
    "estimators": {"rows", "kernels", "fit"},
    "data": set(),
    "blocks": {"rows"},
    "datasets": {"data"},
    "dask": {"rows", "estimators"},
    "plotting": {"metrics"},
    "autoencoder": {"rows", "data", "estimators"},
    "anomaly": {"rows", "estimators", "autoencoder"},
    "persist": {"rows", "estimators", "autoencoder", "anomaly"},
    "_show": {"rows"},
    "__main__": {"cli"},
    "study": {"fit", "metrics", "plotting", "datasets", "autoencoder", "anomaly", "public"},
    "cli": {
        "data",
        "metrics",
        "plotting",
        "datasets",
        "autoencoder",
        "anomaly",
        "persist",
        "study",
        "public",
    },
}
# Parts of a room that may import less than the room. The study's report gets plain numbers, and
# must not depend on the code that computes them.
PARTS = {"study.report": {"plotting"}}
# Rooms that use the package as a user does may import the public names of `ekmfast`.
PUBLIC = "public"


def modules():
    """Yield (dotted name below ekmfast, path) of every module but the package itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield ".".join(parts).removesuffix(".__init__"), path


NAMES = dict(modules())


def imports(path, *, at_start=False):
    """Yield (module, name) of what is imported from this package, anywhere or at its own import."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_start else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            root, _, module = node.module.partition(".")
            if root != "ekmfast":
                continue
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                is_module = inner in NAMES or inner in FLOOR
                yield (inner, "") if is_module else (module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                root, _, module = alias.name.partition(".")
                if root == "ekmfast":
                    yield module, ""


def room(module):
    return module.partition(".")[0] or PUBLIC


@pytest.mark.parametrize("module", NAMES)
def test_imports_point_down(module):
    own = room(module)
    if own in FLOOR:
        allowed = FLOOR
    else:
        assert own in ROOMS, f"a new room: give {own} a row of ROOMS"
        allowed = ROOMS[own] | {own} | FLOOR
    for target, name in imports(NAMES[module]):
        assert room(target) in allowed, f"{module} imports {target} {name}"


@pytest.mark.parametrize("part", PARTS)
def test_parts_import_less_than_their_room(part):
    inside = [module for module in NAMES if f"{module}.".startswith(f"{part}.")]
    assert inside
    for module in inside:
        for target, name in imports(NAMES[module]):
            allowed = target in inside or room(target) in PARTS[part] | FLOOR
            assert allowed, f"{module} imports {target} {name}"


@pytest.mark.parametrize("module", NAMES)
def test_private_names_stay_in_their_package(module):
    own = module.split(".")
    package = own if NAMES[module].name == "__init__.py" else own[:-1]
    for target, name in imports(NAMES[module]):
        if room(target) in FLOOR or room(target) == PUBLIC:
            continue
        parts = target.split(".")
        for i, part in enumerate(parts):
            if part.startswith("_"):
                assert package[:i] == parts[:i], f"{module} imports {target}"
        if name.startswith("_"):
            home = parts if NAMES[target].name == "__init__.py" else parts[:-1]
            assert package[: len(home)] == home, f"{module} imports {name} of {target}"


def test_no_circle():
    below = {module: {t for t, _ in imports(path, at_start=True)} for module, path in modules()}
    done, open_now = set(), []

    def visit(module):
        assert module not in open_now, " -> ".join([*open_now[open_now.index(module) :], module])
        if module in done or module not in below:
            return
        open_now.append(module)
        for target in sorted(below[module]):
            visit(target)
        done.add(open_now.pop())

    for module in below:
        visit(module)
    assert done == set(below)
