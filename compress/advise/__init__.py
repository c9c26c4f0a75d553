"""`slimrec advise`: facts about data -> rules with their reasons -> a recipe that runs."""
