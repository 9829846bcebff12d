"""Fine-tune the base model."""
