"""The daemon: runs the core's effects through the adapters, in order."""
