"""What a replica keeps on its own disk: the log, which is the truth, and what derives from it."""
