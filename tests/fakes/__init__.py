"""Stand-ins for what tests cannot reach."""
