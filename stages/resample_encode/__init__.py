"""Convert every clip to model input."""
