"""The verbs that need no torch, one module each; `deploy/cli.py` lists them."""
