"""Pruning methods as points in a product: criterion × allocation × schedule × survivors × filler (docs/concepts.md)."""
