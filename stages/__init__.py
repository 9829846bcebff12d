"""The pipeline: a folder for each stage, and what they share in common."""
