"""The pinned digests are those of the shipped models, and other models need the setting."""

from __future__ import annotations

import hashlib

import pytest

from core.errors import ConfigurationError, Failed
from core.model_trust import SHIPPED, require_trusted
from core.settings import load_settings
from tests.support.paths import MODELS

OWN = "0123456789abcdef" * 4


def test_the_digests_of_the_shipped_models_are_pinned() -> None:
    """After a change of a ``model.json``, put its new digest into core/model_trust.py."""
    found = {
        hashlib.sha256(path.read_bytes()).hexdigest(): str(path.relative_to(MODELS))
        for path in sorted(MODELS.glob("*/*/model.json"))
    }
    assert set(found) == SHIPPED, found


def test_another_model_is_served_only_if_the_site_has_added_it() -> None:
    with pytest.raises(Failed, match=OWN) as refusal:
        require_trusted(OWN, "rating version 3", load_settings().trusted_digests)
    assert refusal.value.code == "model-not-trusted"
    settings = load_settings(trusted_models=f"{'f' * 64}, {OWN}")
    require_trusted(OWN, "rating version 3", settings.trusted_digests)


@pytest.mark.parametrize("digest", [OWN[:-1], OWN.upper(), "rating"])
def test_what_is_no_digest_stops_the_start(digest: str) -> None:
    with pytest.raises(ConfigurationError, match="EPVS_TRUSTED_MODELS"):
        load_settings(trusted_models=digest)
