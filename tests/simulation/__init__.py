"""The whole cluster in one deterministic process: the production core on a simulated world.

`world.py` holds time and chance, `disk.py` what a machine keeps, `coordinator.py` ZooKeeper,
`node.py` the driver of one core, `judge.py` what may never happen, `simulation.py` the play.
"""
