"""Assign every clip to train, validation or test."""
