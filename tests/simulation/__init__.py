"""The whole cluster in one deterministic process: the production core on a simulated world.

The world: `world.py` holds time and chance, `disk.py` what a machine keeps, `broker.py` RabbitMQ,
`coordinator.py` ZooKeeper, `process.py` and `node.py` the driver of one core, `clients.py` the
load. The play: `simulation.py` with the storms of `faults.py`, and `calm.py`, where one single
thing happens to a healthy cluster. The verdict: `judge.py` holds what may never happen.

`planted.py` holds mistakes that the judge must find. `make sim SEEDS=10000` plays many seeds,
`make sim SEED=n` one, with its trace; `python -m tests.simulation --help` has more.
"""
