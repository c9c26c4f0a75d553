"""Peers on our data, our split and this machine, each in an environment of its own: `python -m benchmarks.peers`."""
