"""The version has one source, `core.version`; files that repeat it must agree."""

import yaml

from core.version import VERSION
from tests.support.paths import ROOT


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
