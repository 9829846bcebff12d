"""A local server that stands in for the Hugging Face Hub."""
