"""Data sets held whole as tensors: readers, validation split, augmentation, loss and what counts as correct."""
