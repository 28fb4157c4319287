"""Faults to inject into a native stack. Each injector makes sure that its fault took effect."""
