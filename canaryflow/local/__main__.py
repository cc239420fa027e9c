"""``python -m canaryflow.local WORKSPACE``: the platform of a workspace, in the foreground."""

import sys

from canaryflow.local.daemon import main

if __name__ == "__main__":
    sys.exit(main())
