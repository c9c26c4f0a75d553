"""The like/dislike task: rows that carry their own history, and a head that says how likely a like is."""
