"""Naming by one arm: features of regions and words, their scores, and names that compete untyped."""
