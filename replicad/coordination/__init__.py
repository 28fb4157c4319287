"""Who leads and who is in sync: the port, ZooKeeper behind it, and memory behind it."""
