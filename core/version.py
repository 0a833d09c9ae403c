"""Name and version of the product; packaging and reports read them from here."""

from typing import Final

NAME: Final = "epvs-node"
VERSION: Final = "0.2.0"
MANUFACTURER: Final = "epvs-node project"
