"""Print the lowest versions that pyproject.toml declares, as a requirements file for pip.

    python tests/lowest.py parquet zarr pandas

prints all run-time dependencies, those of the named extras, and named packages of other extras.
`make test-lowest` installs them.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def pinned(requirement: Requirement) -> str:
    """The requirement with its lower bound as the only version."""
    lowest = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
    if len(lowest) != 1:
        raise ValueError(f"{requirement}: declares {len(lowest)} lowest versions, must be 1")
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={lowest[0]}"


def lowest(project: dict, wanted: list[str]) -> list[str]:
    """Pins of the run-time dependencies, of extras and of single packages of extras."""
    extras = project["optional-dependencies"]
    chosen = [Requirement(line) for line in project["dependencies"]]
    everything = [Requirement(line) for lines in extras.values() for line in lines]
    for name in wanted:
        found = [Requirement(line) for line in extras.get(name, [])]
        found = found or [r for r in everything if r.name == name and r.specifier][:1]
        if not found:
            raise ValueError(f"{name}: neither an extra nor a package of one in {PROJECT.name}")
        chosen += found
    return [pinned(requirement) for requirement in chosen]


if __name__ == "__main__":
    metadata = tomllib.loads(PROJECT.read_text())["project"]
    print(*lowest(metadata, sys.argv[1:]), sep="\n")
