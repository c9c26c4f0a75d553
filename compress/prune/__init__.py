"""Structured pruning: layers, attention heads, feed-forward neurons and vocabulary. Shapes really shrink."""
