"""Model cards: their content, and agreement of the committed cards with ``model.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from core.model_versions import versions
from tests.support.paths import ROOT
from training.rating.scores import score_ratings
from training.release.cards import rating_card, severity_card

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def info() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 60, (30, 6))
    probabilities = rng.dirichlet(np.ones(5), (30, 6)).astype(np.float32)
    cohort = {
        "kind": "synthetic",
        "seed": 1,
        "scans": 30,
        "heads": 30,
        "rejected_heads": 2,
        "conditions": "standard",
    }
    return {
        "display_name": "Rating",
        "version": "7",
        "intended_use": "Not for clinical use.",
        "weights_sha256": "ab" * 32,
        "trained_at": "2026-01-01T00:00:00Z",
        "preprocessing": {"version": 1, "enhancement": "stationary"},
        "architecture": {"filters": [1, 2], "parameters": 3},
        "training": {
            "cohort": cohort,
            "epochs": 4,
            "temperature": 1.25,
            "plan": {
                "loss": "cross-entropy",
                "rate": 1e-3,
                "batch": 32,
                "count_weight": 1.0,
                "averaging": 0.99,
                "balanced": True,
                "degraded_copies": 2,
            },
        },
        "held_out": cohort | {"seed": 2, "conditions": "harsh"},
        "metrics": score_ratings(probabilities, counts),
    }


def test_card_contains_data_scores_calibration_and_errors(info: dict[str, Any]) -> None:
    card = rating_card(info)
    assert "harsh conditions" in card
    assert f"{info['metrics']['image_accuracy']:.3f}" in card
    assert "temperature of 1.25" in card
    error = info["metrics"]["image_calibration"]["expected_calibration_error"]
    assert f"ten bins is {error:.3f}" in card
    assert "rated too low" in card
    assert "auxiliary target" in card
    assert "2 copies" in card
    assert "not for clinical use" in card.lower()


def test_card_of_a_model_trained_on_a_sites_cohort(info: dict[str, Any]) -> None:
    site = {
        "kind": "site",
        "scans": 9,
        "heads": 9,
        "labels": "grades",
        "csv_sha256": "c",
        "skipped_rows": 0,
    }
    info["training"]["cohort"] = info["held_out"] = site
    info["training"]["plan"] |= {
        "count_weight": 0.0,
        "averaging": 0.0,
        "balanced": False,
        "degraded_copies": 0,
    }
    card = rating_card(info)
    assert "labelled by grades" in card
    assert "By circumstance" not in card
    assert "Additions to the paper's recipe" not in card
    assert "synthetic heads" not in card


def test_a_card_of_few_subjects_names_what_is_unknown(info: dict[str, Any]) -> None:
    probabilities = np.full((2, 6, 5), 0.2, np.float32)
    info["metrics"] = score_ratings(probabilities, np.ones((2, 6), int))
    assert "unknown elsewhere" in rating_card(info)


@pytest.mark.parametrize(("name", "card"), [("rating", rating_card), ("severity", severity_card)])
def test_committed_cards_are_generated_from_the_description(
    name: str, card: Callable[[dict[str, Any]], str]
) -> None:
    model = ROOT / "triton_models" / name
    for version in versions(model):
        info = json.loads((model / version / "model.json").read_text(encoding="utf-8"))
        assert (model / version / "MODEL.md").read_text(encoding="utf-8") == card(info)
