"""Claims: extending the lease during an attempt, and recording the outcome."""
