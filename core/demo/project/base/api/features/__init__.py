"""One module per feature, each with a function `register(app)`."""
