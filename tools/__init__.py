"""Command-line tools for results and presets."""
