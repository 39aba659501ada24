"""The HTML report: one file, made from the history alone."""
