"""Training of the models of tokenlm: one visible loop, one `Task` per stage."""
