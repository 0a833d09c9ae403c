"""Commands that the operator's command line runs as processes of their own."""
