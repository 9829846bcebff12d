"""Classify recordings of any length with a fine-tuned model."""
