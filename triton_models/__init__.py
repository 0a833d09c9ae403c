"""Models that the package ships: networks, Triton configurations, descriptions and model cards."""
