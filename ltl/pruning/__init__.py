"""A pruning method as a point in a product of pure functions (DESIGN §4): criterion × allocation × schedule × survivors × filler."""
