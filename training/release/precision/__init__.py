"""Explicit precision: the FP16 copy of an exported network, decided layer by layer."""
