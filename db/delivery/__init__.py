"""Delivery, in the database: planning, claims, transitions and storage commitment."""
