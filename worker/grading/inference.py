"""Inference: both models' inputs to their outputs, answered by Triton over gRPC.

The only module that knows tritonclient. What comes back is checked before it can become a grade,
and the served weights are compared with ``model.json`` on every call, so that a grade never
carries another model's name.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from core.errors import Failed, Unavailable
from core.results import ModelIdentity
from worker.grading.records import Float32Array, RatingOutput, SeverityOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from worker.grading.records import RatingInput, SeverityInput

PROBABILITY_TOLERANCE: Final = 0.02
"""How far an FP16 engine's probabilities may lie from the golden ones."""
SALIENCY_CORRELATION: Final = 0.99
"""Least Pearson correlation of the saliency with the golden one."""
_SUM_TOLERANCE: Final = 5e-3
"""Five FP16 probabilities, each rounded at 2⁻¹¹, and the softmax before them."""

_TRANSIENT: Final = frozenset(
    f"StatusCode.{code}"
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND", "RESOURCE_EXHAUSTED")
)
"""gRPC statuses that say "not now"; NOT_FOUND is a model that is not (yet) loaded."""

_DEAD_MODEL_PROCESS: Final = "is not healthy"

_REMEDY_MODEL: Final = (
    "Let Triton serve the model repository of this release (triton_models/README.md) and restart."
)


@dataclass(frozen=True, slots=True)
class _Model:
    """What ``model.json`` promises of one model."""

    identity: ModelIdentity
    inputs: Mapping[str, tuple[int, ...]]
    """Name to shape, the batch first and -1."""
    outputs: Mapping[str, tuple[int, ...]]
    golden_path: Path
    enhancement: str
    """Haar enhancement of the images that the network was trained on."""

    @classmethod
    def read(cls, models_dir: Path, name: str) -> _Model:
        path = models_dir / name / "model.json"
        try:
            text = json.loads(path.read_text())
            identity = ModelIdentity(
                name=text["name"],
                version=text["version"],
                weights_sha256=text["weights_sha256"],
                display_name=text["display_name"],
                training_data=text["training_data"],
            )
            inputs = {key: tuple(dims) for key, dims in text["inputs"].items()}
            outputs = {key: tuple(dims) for key, dims in text["outputs"].items()}
            enhancement = str(text["preprocessing"]["enhancement"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(
                "model-description-invalid",
                f"{path} cannot be used ({type(error).__name__}: {error}).",
                "Correct EPVS_MODELS_DIR or restore the file.",
            ) from None
        golden_path = models_dir / name / identity.version / "golden.npz"
        return cls(identity, inputs, outputs, golden_path, enhancement)


class InferenceClient:
    """Both models behind one Triton; one client per process, made after the fork.

    A gRPC channel does not survive a fork, so each worker child makes its own.

    Parameters
    ----------
    url : str
        Triton's gRPC endpoint, ``host:port``.
    models_dir : Path
        ``triton_models/``: each model's ``model.json`` and golden answers.
    timeout_s : float
        Deadline of every call; tritonclient by itself would wait for ever.

    Raises
    ------
    Failed
        A ``model.json`` is missing or malformed.
    """

    def __init__(self, url: str, models_dir: Path, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._rating = _Model.read(models_dir, "rating")
        self._severity = _Model.read(models_dir, "severity")
        self._client = triton.InferenceServerClient(url)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until Triton answers and has both models loaded.

        Raises
        ------
        Unavailable
            It is not ready after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                for model in (self._rating, self._severity):
                    self._check_ready(model, min(self._timeout_s, timeout_s))
            except Unavailable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def rate(self, rating_input: RatingInput) -> RatingOutput:
        """Grade the six basal-ganglia images.

        Raises
        ------
        Unavailable
            Triton does not answer in time, or the model is not loaded.
        Failed
            Another model is served, or the answer is not one of probabilities.
        """
        answer = self._infer(self._rating, {"crops": rating_input.crops})
        return RatingOutput(
            check_distribution(answer["probabilities"], "rating"), self._rating.identity
        )

    def assess(self, severity_input: SeverityInput) -> SeverityOutput:
        """Tell none-to-mild from moderate-to-severe, with the saliency behind the answer.

        Raises
        ------
        Unavailable, Failed
            As `rate`.
        """
        answer = self._infer(self._severity, {"volume": severity_input.volume})
        check_severity(answer["probability"], answer["saliency"])
        return SeverityOutput(
            float(answer["probability"][0, 0]), answer["saliency"][0], self._severity.identity
        )

    def check_enhancement(self, enhancement: str) -> None:
        """Compare a setting with what the rating model was trained on.

        Raises
        ------
        Failed
            ``enhancement-mismatch``: crops prepared so would be graded wrongly without a sign.
        """
        trained = self._rating.enhancement
        if enhancement != trained:
            raise Failed(
                "enhancement-mismatch",
                f"The rating model was trained on {trained} Haar enhancement, and "
                f"EPVS_ENHANCEMENT is {enhancement}.",
                f"Set EPVS_ENHANCEMENT={trained}, or serve a model trained otherwise.",
            )

    def check_golden(self) -> None:
        """Let both models answer the inputs whose answers are known.

        It catches a bad engine build, a wrong version, a swapped model. A worker takes no work
        before it has passed.

        Raises
        ------
        Unavailable
            As `rate`.
        Failed
            ``golden-mismatch`` with the model's name and the figures, or as `rate`.
        """
        for model, differences in (
            (self._rating, rating_differences),
            (self._severity, severity_differences),
        ):
            inputs, expected = load_golden(model.golden_path, model.inputs, model.outputs)
            found = list(differences(self._infer(model, inputs), expected))
            if found:
                identity = model.identity
                raise Failed(
                    "golden-mismatch",
                    f"The model {identity.name} version {identity.version} at {self._url} does "
                    f"not give its golden answer: {'; '.join(found)}.",
                    "Rebuild its engine; if that does not help, restore the model's folder.",
                )

    def _infer(self, model: _Model, arrays: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        self._check_served(model)
        requested = []
        for name, array in arrays.items():
            tensor = triton.InferInput(name, array.shape, "FP32")
            tensor.set_data_from_numpy(np.ascontiguousarray(array, np.float32))
            requested.append(tensor)
        result = self._call(
            model,
            self._client.infer,
            model.identity.name,
            requested,
            model_version=model.identity.version,
            outputs=[triton.InferRequestedOutput(name) for name in model.outputs],
        )
        rows = next(iter(arrays.values())).shape[0]
        answer = {}
        for name, dims in model.outputs.items():
            array = result.as_numpy(name)
            if array is None or array.shape != (rows, *dims[1:]):
                shape = None if array is None else array.shape
                raise _invalid(model.identity.name, f"{name} has shape {shape}")
            answer[name] = np.asarray(array, np.float32)
        return answer

    def _check_ready(self, model: _Model, timeout_s: float) -> None:
        name, version = model.identity.name, model.identity.version
        ready = self._call(
            model, self._client.is_model_ready, name, version, client_timeout=timeout_s
        )
        if not ready:
            raise Unavailable("triton", f"The model {name} version {version} is not ready.")

    def _check_served(self, model: _Model) -> None:
        """Compare the served configuration with ``model.json``: names, shapes and weights."""
        identity = model.identity
        config = self._call(
            model, self._client.get_model_config, identity.name, identity.version
        ).config
        batch = () if config.max_batch_size == 0 else (-1,)
        for kind, promised, served in (
            ("inputs", model.inputs, config.input),
            ("outputs", model.outputs, config.output),
        ):
            found = {tensor.name: (*batch, *tensor.dims) for tensor in served}
            if found != promised:
                raise Failed(
                    "model-mismatch",
                    f"Triton serves {identity.name} with the {kind} {found}, "
                    f"model.json says {dict(promised)}.",
                    _REMEDY_MODEL,
                )
        weights = config.parameters[f"weights_sha256.{identity.version}"].string_value
        if weights != identity.weights_sha256:
            stated = f"the weights {weights[:12]}" if weights else "unstated weights"
            raise Failed(
                "model-mismatch",
                f"Triton serves {identity.name} version {identity.version} with {stated}, "
                f"model.json says {identity.weights_sha256[:12]}.",
                _REMEDY_MODEL,
            )

    def _call(self, model: _Model, method: Any, *arguments: Any, **options: Any) -> Any:
        """Call Triton with a deadline and put its errors into the node's terms."""
        options.setdefault("client_timeout", self._timeout_s)
        try:
            return method(*arguments, **options)
        except InferenceServerException as error:
            name, status = model.identity.name, str(error.status())
            # A dead process of the Python backend is Triton's trouble, not the study's.
            if status in _TRANSIENT or _DEAD_MODEL_PROCESS in str(error.message()):
                raise Unavailable(
                    "triton",
                    f"Triton at {self._url} gave no answer for the model {name} "
                    f"({status.removeprefix('StatusCode.')}).",
                    "Check that it runs, has loaded the model and is not overloaded.",
                ) from None
            raise Failed(
                "model-error", f"Triton could not run the model {name}: {error.message()}"
            ) from None


def check_distribution(probabilities: Float32Array, model: str) -> Float32Array:
    """Return `probabilities`, shape (n, classes), when each row is a distribution.

    Raises
    ------
    Failed
        ``model-answer-invalid``.
    """
    if not np.isfinite(probabilities).all():
        raise _invalid(model, "a probability is not finite")
    if probabilities.min() < 0 or probabilities.max() > 1 + _SUM_TOLERANCE:
        raise _invalid(
            model, f"probabilities from {probabilities.min():.3f} to {probabilities.max():.3f}"
        )
    sums = probabilities.sum(axis=1)
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:
        raise _invalid(model, f"probabilities that sum to {sums.min():.3f}–{sums.max():.3f}")
    return probabilities


def check_severity(probability: Float32Array, saliency: Float32Array) -> None:
    """Refuse a probability outside 0–1 and a saliency that is not finite or negative.

    Raises
    ------
    Failed
        ``model-answer-invalid``.
    """
    if not (np.isfinite(probability).all() and 0 <= probability.min() <= probability.max() <= 1):
        raise _invalid("severity", "the probability is not from 0 to 1")
    if not np.isfinite(saliency).all() or saliency.min() < 0:
        raise _invalid("severity", "the saliency is negative or not finite")


def _invalid(model: str, what: str) -> Failed:
    return Failed(
        "model-answer-invalid",
        f"The model {model} gave an answer that cannot be used: {what}.",
        "Run the golden self-test (`epvs-node doctor`).",
    )


def load_golden(
    path: Path, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> tuple[dict[str, Float32Array], dict[str, Float32Array]]:
    """Read a model's golden input and answer.

    Parameters
    ----------
    path : Path
        ``golden.npz``: one array per input and output, named like it; uint8 stands for value/255.
    inputs, outputs : mapping
        Whose keys are the names.

    Raises
    ------
    Failed
        The file is missing or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return (
                {name: _decode(arrays[name]) for name in inputs},
                {name: _decode(arrays[name]) for name in outputs},
            )
    except (OSError, ValueError, KeyError) as error:
        raise Failed(
            "model-description-invalid",
            f"{path} cannot be used ({type(error).__name__}: {error}).",
            "Restore the model's folder.",
        ) from None


def _decode(array: np.ndarray[Any, Any]) -> Float32Array:
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    return array.astype(np.float32)


def rating_differences(
    answer: Mapping[str, Float32Array], expected: Mapping[str, Float32Array]
) -> Iterator[str]:
    """Say where a rating is not the golden one, beyond the tolerances."""
    probabilities, golden = answer["probabilities"], expected["probabilities"]
    yield from _probability_difference(probabilities, golden)
    ratings, golden_ratings = probabilities.argmax(axis=1), golden.argmax(axis=1)
    if (ratings != golden_ratings).any():
        yield f"ratings {ratings.tolist()} instead of {golden_ratings.tolist()}"


def severity_differences(
    answer: Mapping[str, Float32Array], expected: Mapping[str, Float32Array]
) -> Iterator[str]:
    """Say where a severity answer is not the golden one, beyond the tolerances."""
    yield from _probability_difference(answer["probability"], expected["probability"])
    saliency, golden = answer["saliency"].ravel(), expected["saliency"].ravel()
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant map correlates with nothing
        correlation = np.corrcoef(saliency, golden)[0, 1]
    if not correlation >= SALIENCY_CORRELATION:
        yield f"saliency correlates {correlation:.3f} (at least {SALIENCY_CORRELATION})"


def _probability_difference(found: Float32Array, golden: Float32Array) -> Iterator[str]:
    difference = np.abs(found - golden).max()
    if not difference <= PROBABILITY_TOLERANCE:  # also true of NaN
        yield f"probabilities differ by {difference:.3f} (at most {PROBABILITY_TOLERANCE})"
