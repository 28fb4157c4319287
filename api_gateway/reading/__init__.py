"""Reading records: single ones, queries, changes."""
