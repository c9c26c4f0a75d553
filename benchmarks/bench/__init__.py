"""`slimrec bench`: how fast, how large and how near to the machine's limits a bundle is, here. Torch-free."""
