"""Attack: whoever can write into the models' folder exchanges a model, consistently.

Weights, golden predictions and description are replaced together, and Triton serves what is in the
folder. Every digest within the folder is right, and the self-test passes. What holds it is that the
digest of the description is known outside the folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from core.errors import Failed
from core.settings import Settings, load_settings
from db import migrate
from tests.support.builders.stand_in_models import digests, rating_network, write_model
from tests.support.builders.stand_in_models import write_stand_ins as write_site_models
from tests.support.paths import ROOT
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from node.embedded.triton import EmbeddedTriton


@pytest.fixture
def settings(tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]) -> Settings:
    """A site with own models, which it trusts, after the exchange of its rating model."""
    models = write_site_models(tmp_path / "models")
    trusted = digests(models)
    write_model(models, "rating", rating_network(7))
    assert digests(models) != trusted
    settings = load_settings(
        data_dir=tmp_path, models_dir=models, triton_url=serve(models).url, trusted_models=trusted
    )
    migrate.upgrade(settings.database_url)
    return settings


def code_of_start(settings: Settings) -> str:
    """What the check before a worker's start ends with; empty: the worker starts."""
    try:
        Services(settings).check_models(wait_s=60)
    except Failed as refusal:
        return refusal.code
    return ""


def test_a_worker_refuses_a_model_that_was_exchanged_with_all_that_describes_it(
    settings: Settings,
) -> None:
    assert code_of_start(settings) == "model-not-trusted"
    # The exchange is consistent: without the pinned digest nothing would show it.
    everything = settings.model_copy(update={"trusted_models": digests(settings.models_dir)})
    assert code_of_start(everything) == ""


def test_neither_does_an_operator_promote_it(settings: Settings) -> None:
    environment = {
        f"EPVS_{name.upper()}": str(getattr(settings, name))
        for name in ("data_dir", "models_dir", "triton_url", "trusted_models", "database_url")
    }
    for command in ("promote", "shadow"):
        done = subprocess.run(
            [sys.executable, "-m", "node", "models", command, "rating", "1"],
            env=os.environ | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 1
        assert "model-not-trusted" in done.stderr + done.stdout


def test_a_part_of_an_exchange_is_found_by_the_digests_in_the_folder(
    settings: Settings, tmp_path: Path
) -> None:
    """The description is as it was, so that it is trusted; other files are exchanged."""
    site = write_site_models(tmp_path / "again")
    for name, code in (
        ("model.json", "model-description-invalid"),  # the golden predictions are exchanged
        ("golden.npz", "model-mismatch"),  # Triton serves the exchanged weights
    ):
        original = site / "rating" / "1" / name
        (settings.models_dir / "rating" / "1" / name).write_bytes(original.read_bytes())
        assert code_of_start(settings) == code
