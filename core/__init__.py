"""What every part of the node shares: settings, records, errors, UIDs, logs.

``core`` imports nothing else of this project, so every other room may import it.
"""
