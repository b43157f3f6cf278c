"""The ``ekmfast`` command as ``python -m ekmfast``."""

import sys

from ekmfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
