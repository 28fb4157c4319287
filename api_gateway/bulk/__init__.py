"""Import and export: many records as streams."""
