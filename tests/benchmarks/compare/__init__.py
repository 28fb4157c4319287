"""Whole systems side by side, each alone on the machine while it is measured: `make bench`."""
