"""The whole cluster in one deterministic process: the production core on a simulated world.

`world.py` holds time and chance, `disk.py` what a machine keeps, `network.py` RabbitMQ,
`coordinator.py` ZooKeeper, `node.py` the driver of one core, `clients.py` the load, `faults.py`
what goes wrong, `judge.py` what may never happen, `simulation.py` the play; `planted.py` holds
mistakes that the judge must find.

`python -m tests.simulation SEED` replays one seed and prints its trace.
"""
