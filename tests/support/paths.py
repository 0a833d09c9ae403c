"""Paths that the tests share."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
MODELS: Final = ROOT / "triton_models"
SAMPLE_DATA: Final = ROOT.parent / "shared" / "sample_data"
"""Images from real scanners beside the repository; absent on a user's machine."""
