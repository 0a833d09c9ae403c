"""Delivery: which destination receives what, the state of each delivery, storage commitment."""
