"""Whole systems: what goes in, what comes out."""
