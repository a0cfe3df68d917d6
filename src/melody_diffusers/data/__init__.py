"""Datasets of every stage, and the encoder that caches latents and tokens."""
