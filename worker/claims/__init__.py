"""Claims: keeping the lease on a row during an attempt, and recording how the attempt ended."""
