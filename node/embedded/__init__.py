"""The one-machine stack: the real servers, started as children of the operator's command."""
