"""Measure the fine-tuned model and two baselines on the test clips."""
