"""Commands that the node's command line runs in processes of their own."""
