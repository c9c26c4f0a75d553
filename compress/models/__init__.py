"""The two parts every model is made of: `sequence` (history -> user vector) and `text` (item text -> item vector)."""
