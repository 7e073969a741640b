"""`python -m porter`."""

import os
import sys

# Python looks for modules where one stands, which may be in a stranger's checkpoint. (`porter` does not.)
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
    del sys.path[0]

from porter.cli import main

main()
