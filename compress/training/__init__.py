"""Training of all models: windows over histories, the softmax over items, one loop, answers to validation cases."""

from compress.training.answers import top_of_cases, validation_ndcg, validation_ranks, warm_items
from compress.training.loop import Fit, Share, Training, batches, fit, seed_everything
from compress.training.windows import Windows, windows

__all__ = [
    "Fit",
    "Share",
    "Training",
    "Windows",
    "batches",
    "fit",
    "seed_everything",
    "top_of_cases",
    "validation_ndcg",
    "validation_ranks",
    "warm_items",
    "windows",
]
