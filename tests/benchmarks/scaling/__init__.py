"""Arithmetic for several groups of replicas: docs/scaling.md, its figures and its tables."""
