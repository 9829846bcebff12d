"""Assemble the model repository and push it."""
