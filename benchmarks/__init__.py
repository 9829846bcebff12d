"""Measurements of speed and accuracy against the course's settings."""
