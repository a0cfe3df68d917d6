"""Samplers in the shape of diffusers schedulers."""
