"""Rows for received instances, and closing a study once it has been quiet long enough."""
