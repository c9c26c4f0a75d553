"""Structured pruning: layers, heads, neurons, hidden width, item dimensions, words and their rank; shapes shrink."""
