"""Copy the tests of a wheel, which pyproject.toml lists for cibuildwheel, into a folder."""

import shutil
import sys
import tomllib
from pathlib import Path

folder = Path(sys.argv[1])
with open("pyproject.toml", "rb") as file:
    sources = tomllib.load(file)["tool"]["cibuildwheel"]["test-sources"]
for source in sources:
    (folder / source).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder / source)
