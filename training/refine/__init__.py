"""`tokenlm refine`: from raw recordings to a training manifest."""
