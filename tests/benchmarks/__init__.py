"""Measurements, run by `make bench-failover`. No tests: nothing here passes or fails by a time."""
