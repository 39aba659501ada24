"""What runs often: the pipeline, its tasks and the loaders of raw data."""
