"""Instability analysis: the error between networks that began alike; reads trained weights and trains nothing."""
