"""Running the models for people."""
