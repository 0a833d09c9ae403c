"""The model server: calls to Triton, over gRPC, for any version of any model.

The only module that imports tritonclient. The weights that Triton serves are compared with
``model.json`` on every call, so that a prediction never carries the name of another model.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from core.errors import Failed, Unavailable
from worker.grading.inference.description import GOLDEN
from worker.grading.inference.golden import DIFFERENCES, load_golden
from worker.grading.inference.predictions import invalid_prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worker.grading.inference.description import ModelDescription
    from worker.grading.records import Float32Array

_TRANSIENT: Final = frozenset(
    f"StatusCode.{code}"
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND", "RESOURCE_EXHAUSTED")
)
"""gRPC statuses of a server that may recover; NOT_FOUND: the model is not loaded (yet)."""

_DEAD_MODEL_PROCESS: Final = "is not healthy"

_REMEDY_MODEL: Final = (
    "Let Triton serve the model repository of this release (triton_models/README.md) and restart."
)


class ModelServer:
    """Connection to one Triton server.

    A gRPC channel does not survive a fork, so each worker process builds its own.

    Parameters
    ----------
    url : str
        Triton's gRPC endpoint, ``host:port``.
    timeout_s : float
        Deadline of every call; tritonclient itself would wait without limit.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._client = triton.InferenceServerClient(url)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def wait_ready(self, models: Iterable[ModelDescription], timeout_s: float) -> None:
        """Wait until Triton responds and has loaded these versions.

        Raises
        ------
        Unavailable
            It is not ready after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                for model in models:
                    self._check_ready(model, min(self._timeout_s, timeout_s))
            except Unavailable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def infer(
        self, model: ModelDescription, arrays: Mapping[str, Float32Array]
    ) -> dict[str, Float32Array]:
        """Run one version on its inputs, given by name; return its outputs by name.

        Raises
        ------
        Unavailable
            Triton does not respond in time, or the version is not loaded.
        Failed
            Triton serves another model, could not run it, or the shape of an output is wrong.
        """
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
        tensors = {}
        for name, dims in model.outputs.items():
            array = result.as_numpy(name)
            if array is None or array.shape != (rows, *dims[1:]):
                shape = None if array is None else array.shape
                raise invalid_prediction(model.identity.name, f"{name} has shape {shape}")
            tensors[name] = np.asarray(array, np.float32)
        return tensors

    def check_golden(self, model: ModelDescription) -> None:
        """Run one version on inputs whose outputs are known.

        This detects a faulty engine build, a wrong version and a swapped model. A worker uses no
        version before it has passed.

        Raises
        ------
        Unavailable
            As `infer`.
        Failed
            ``golden-mismatch`` with the model's name and the figures;
            ``model-description-invalid``: the golden file is not the described one; or as `infer`.
        """
        identity = model.identity
        inputs, expected = load_golden(
            model.folder / GOLDEN, model.inputs, model.outputs, sha256=model.files[GOLDEN]
        )
        found = list(DIFFERENCES[identity.name](self._infer_rows(model, inputs), expected))
        if found:
            raise Failed(
                "golden-mismatch",
                f"The model {identity.name} version {identity.version} at {self.url} does "
                f"not reproduce its golden output: {'; '.join(found)}.",
                "Rebuild its engine; if that does not help, restore the model's folder.",
            )

    def _infer_rows(
        self, model: ModelDescription, arrays: Mapping[str, Float32Array]
    ) -> dict[str, Float32Array]:
        """Run a version in batches as large as Triton takes; golden files hold more rows."""
        size = max(self._check_served(model).max_batch_size, 1)
        rows = next(iter(arrays.values())).shape[0]
        batches = [
            self.infer(model, {name: array[at : at + size] for name, array in arrays.items()})
            for at in range(0, rows, size)
        ]
        return {name: np.concatenate([each[name] for each in batches]) for name in model.outputs}

    def _check_ready(self, model: ModelDescription, timeout_s: float) -> None:
        name, version = model.identity.name, model.identity.version
        ready = self._call(
            model, self._client.is_model_ready, name, version, client_timeout=timeout_s
        )
        if not ready:
            raise Unavailable("triton", f"The model {name} version {version} is not ready.")

    def _check_served(self, model: ModelDescription) -> Any:
        """Compare the served configuration with ``model.json``: names, shapes and weights.

        Returns
        -------
        ModelConfig
            The served configuration.
        """
        identity = model.identity
        config = self._call(
            model, self._client.get_model_config, identity.name, identity.version
        ).config
        batch = () if config.max_batch_size == 0 else (-1,)
        for kind, described, served in (
            ("inputs", model.inputs, config.input),
            ("outputs", model.outputs, config.output),
        ):
            found = {tensor.name: (*batch, *tensor.dims) for tensor in served}
            if found != described:
                raise Failed(
                    "model-mismatch",
                    f"Triton serves {identity.name} with the {kind} {found}, "
                    f"model.json says {dict(described)}.",
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
        return config

    def _call(self, model: ModelDescription, method: Any, *arguments: Any, **options: Any) -> Any:
        """Call Triton with a deadline; raise its errors as `Unavailable` or `Failed`."""
        options.setdefault("client_timeout", self._timeout_s)
        try:
            return method(*arguments, **options)
        except InferenceServerException as error:
            name, status = model.identity.name, str(error.status())
            # A dead process of the Python backend is a fault of the server, not of the study.
            if status in _TRANSIENT or _DEAD_MODEL_PROCESS in str(error.message()):
                raise Unavailable(
                    "triton",
                    f"Triton at {self.url} did not respond for the model {name} "
                    f"({status.removeprefix('StatusCode.')}).",
                    "Check that it runs, has loaded the model and is not overloaded.",
                ) from None
            raise Failed(
                "model-error", f"Triton could not run the model {name}: {error.message()}"
            ) from None
