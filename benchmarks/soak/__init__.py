"""`make soak`: a server process under load for minutes, held against the targets of the edge.

`python -m benchmarks.soak BUNDLE` writes `benchmarks/results/soak.{json,md}`. `load.py` is the load generator, a
process of its own; `device.py` the server and its releases; `run.py` the order of things; `verdict.py` the targets.
"""
