"""Writing records and defining collections."""
