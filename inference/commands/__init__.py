"""Verbs of the `tokenlm` command. Heavy libraries are imported inside the functions."""
