"""Search for params with Optuna, over DVC experiments, without the test clips."""
