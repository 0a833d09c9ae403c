"""Receiving: rows for stored instances, and closing a study once it has been quiet long enough."""
