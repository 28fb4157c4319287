"""The replication protocol, pure: events in, effects out.

Nothing below this package touches a socket, a file, a clock, a thread or global randomness.
Time arrives with every event, randomness is injected, and what must be durable is an effect
whose completion comes back as an event. `docs/protocol.md` numbers the rules cited here.
"""
