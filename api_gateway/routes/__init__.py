"""The paths of the API and their handlers."""
