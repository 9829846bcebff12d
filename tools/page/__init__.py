"""A web page to try the model, listen to the data set, and look at errors."""
