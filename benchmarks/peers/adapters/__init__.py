"""One file per peer, run in the peer's own environment: it imports numpy, and the peer when asked to."""
