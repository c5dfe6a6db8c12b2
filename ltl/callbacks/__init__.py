"""Lightning callbacks: the prune-rewind cycle, scores of supermasks, given starts, records, checkpoints, progress."""

from ltl.callbacks.prune_rewind import PruneRewind

__all__ = ["PruneRewind"]
