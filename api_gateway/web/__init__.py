"""HTTP itself: what surrounds every request."""
