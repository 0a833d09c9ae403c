"""What must hold between rows, files and audit trail at any time, checked read-only."""
