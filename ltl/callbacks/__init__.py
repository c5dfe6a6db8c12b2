"""Lightning callbacks: the prune-rewind cycle, retraining given starts, records, checkpoints and progress."""

from ltl.callbacks.prune_rewind import PruneRewind

__all__ = ["PruneRewind"]
