"""A trained network found in a random one by subset sums of its weights (Pensia et al. 2020); trains nothing."""
