"""Teachers a team already has: their vectors or their answers come as files, and students learn from those."""
