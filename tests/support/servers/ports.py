"""Free ports for servers that a test starts."""

from node.embedded.process import free_port

__all__ = ["free_port"]
