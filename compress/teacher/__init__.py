"""The teacher: pretrain an LM on item texts, train a recommender on the source domain, fine-tune it on the target."""
