"""Pruning methods as points in a product: criterion × allocation × schedule × survivors × filler (DESIGN §4)."""
