"""`tokenlm data refine`: from raw recordings to a training manifest."""
