"""The gateway: a stateless REST server in front of the replicas. See docs/architecture.md."""
