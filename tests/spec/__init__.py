"""The protocol's model in docs/spec/, searched by Spin."""
