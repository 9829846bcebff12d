"""Modules that two or more stages use."""
