"""Find labels that are probably wrong, and let a person decide."""
