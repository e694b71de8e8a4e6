"""`python -m sweeps` is the command `lightsweep`."""

import sys

from sweeps.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
