"""Check that a tag names the version of the package: ``python check_tag.py v0.2.0``."""

import re
import sys
from pathlib import Path

text = (Path(__file__).parents[1] / "ekmfast" / "_version.py").read_text()
version = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]
if sys.argv[1] != f"v{version}":
    sys.exit(f"the tag {sys.argv[1]!r} is not 'v{version}', the version in ekmfast/_version.py")
