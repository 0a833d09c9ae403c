"""``python3 -m node.machine [--json]``: see `node.machine`. ``make doctor`` runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from node.machine import report


def main() -> int:
    """Print the report; return 0 if this machine can run the node, else 1."""
    parser = argparse.ArgumentParser(
        prog="python3 -m node.machine", description="Which profiles this machine can run."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    found = report.examine(Path.cwd())
    sys.stdout.write(f"{found.as_json() if arguments.json else found.as_text()}\n")
    return 0 if found.can_run else 1


if __name__ == "__main__":
    sys.exit(main())
