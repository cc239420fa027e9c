"""``python -m canaryflow`` is the command ``canaryflow``."""

from canaryflow.cli import main

main()
