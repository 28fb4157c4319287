"""A replicated store for JSON records: a record acknowledged is on every in-sync replica."""
