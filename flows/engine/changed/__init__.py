"""What need not be built again: fingerprints of code, settings and data, and the last state that was good."""
