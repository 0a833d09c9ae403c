"""Name and version of the product; packaging and reports read them from here."""

from typing import Final

NAME: Final = "epvs-node"
VERSION: Final = "0.2.0"
MANUFACTURER: Final = "epvs-node project"

CAVEAT: Final = (
    "Not for clinical use: the models were trained on synthetic data. Research use only; "
    "not a medical device; not for diagnosis or treatment decisions."
)
"""Said wherever a grade is shown, as long as the shipped weights are trained on synthetic data."""
