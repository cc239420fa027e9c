"""The process that runs one compiled pipeline through KFP's local runner.

It is a process of its own so that everything it starts can be stopped together, and so that KFP's log,
which holds whole executor messages, goes to a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType


def main(argv: list[str]) -> int:
    """Run the pipeline that a JSON file describes: its path, arguments, and folder for artifacts."""
    signal.signal(signal.SIGTERM, _stop_group)
    # What is live shares this machine's cores with the pipeline, and comes first.
    os.nice(10)
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))

    from kfp import local
    from kfp.components import load_component_from_file

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=job["root"])
    pipeline = load_component_from_file(job["pipeline"])
    pipeline(**job["arguments"])
    return 0


def _stop_group(signum: int, frame: FrameType | None) -> None:
    """A step is a child of a shell that would outlive this process: end the whole group."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
