"""Pixano Inference itself, over Ray Serve.

python -m benchmarks.peers.with_pixano PORT

PIXANO_PYTHON is the Python that has it, `pip install 'pixano-inference[server]'`, where this one has not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CONFIG = Path(__file__).with_name("nothing.py")


def main() -> None:
    python = os.environ.get("PIXANO_PYTHON") or sys.executable
    serve = "from pixano_inference.cli import main; main()"
    os.execv(python, [python, "-c", serve, "--port", sys.argv[1], "--config", str(CONFIG)])


if __name__ == "__main__":
    main()
