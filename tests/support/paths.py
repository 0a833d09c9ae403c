"""Where the tests find what they share."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SAMPLE_DATA: Final = ROOT.parent / "shared" / "sample_data"
"""Real scanner output beside the repository; absent on a user's machine."""
