"""Inference: the client of the model server, and the checks of models and predictions."""

from worker.grading.inference.client import InferenceClient

__all__ = ["InferenceClient"]
