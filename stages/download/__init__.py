"""Download the labelled clips and the base model."""
