"""The client of both models, in the versions that grade a study.

Predictions are checked before they become a grade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from core.results import combine_intended_use
from worker.grading.inference.description import ModelDescription
from worker.grading.inference.predictions import check_distribution, check_severity
from worker.grading.inference.server import ModelServer
from worker.grading.records import RatingOutput, SeverityOutput

if TYPE_CHECKING:
    from pathlib import Path

    from core.results import IntendedUse, ModelIdentity
    from worker.grading.inference.description import Enhancement
    from worker.grading.records import RatingInput, SeverityInput


class InferenceClient:
    """One version of each model on a Triton server.

    Parameters
    ----------
    server : ModelServer
    rating, severity : ModelDescription
        The versions.
    """

    def __init__(
        self, server: ModelServer, rating: ModelDescription, severity: ModelDescription
    ) -> None:
        self.server = server
        self.rating = rating
        self.severity = severity

    @classmethod
    def connect(cls, url: str, models_dir: Path, timeout_s: float) -> Self:
        """Connect to the highest versions in a model repository, without any check of origin.

        Raises
        ------
        Failed
            A ``model.json`` is missing or malformed.
        """
        rating = ModelDescription.read(models_dir, "rating")
        severity = ModelDescription.read(models_dir, "severity")
        return cls(ModelServer(url, timeout_s), rating, severity)

    def close(self) -> None:
        """Close the channel."""
        self.server.close()

    @property
    def models(self) -> tuple[ModelIdentity, ModelIdentity]:
        """Rating model and severity model, as their ``model.json`` describes them."""
        return self.rating.identity, self.severity.identity

    @property
    def intended_use(self) -> IntendedUse:
        """What both models together may be used for, as their ``model.json`` states it."""
        return combine_intended_use(self.models)

    @property
    def enhancement(self) -> Enhancement:
        """Haar enhancement of the images that the rating model was trained on."""
        return self.rating.enhancement

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until Triton responds and has loaded both models.

        Raises
        ------
        Unavailable
            It is not ready after `timeout_s` seconds.
        """
        self.server.wait_ready((self.rating, self.severity), timeout_s)

    def check_golden(self) -> None:
        """Run both models on inputs whose outputs are known: `ModelServer.check_golden`."""
        self.server.check_golden(self.rating)
        self.server.check_golden(self.severity)

    def rate(self, rating_input: RatingInput) -> RatingOutput:
        """Grade the six basal-ganglia images.

        Raises
        ------
        Unavailable
            Triton does not respond in time, or the model is not loaded.
        Failed
            Triton serves another model, or the prediction is not a probability distribution.
        """
        output = self.server.infer(self.rating, {"crops": rating_input.crops})
        return RatingOutput(
            check_distribution(output["probabilities"], "rating"), self.rating.identity
        )

    def assess(self, severity_input: SeverityInput) -> SeverityOutput:
        """Predict P(moderate-to-severe) of a scan, with the saliency behind it.

        Raises
        ------
        Unavailable, Failed
            As `rate`.
        """
        output = self.server.infer(self.severity, {"volume": severity_input.volume})
        check_severity(output["probability"], output["saliency"])
        return SeverityOutput(
            float(output["probability"][0, 0]), output["saliency"][0], self.severity.identity
        )
