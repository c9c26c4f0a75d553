"""Structured pruning: layers, heads, neurons, hidden width, vocabulary, embedding rank. Shapes really shrink."""
