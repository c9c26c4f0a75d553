"""Structured pruning: layers, attention heads, feed-forward neurons, item dimensions, vocabulary; shapes shrink."""
