"""How fast streaming is: `tokenlm benchmark`, or `scripts/benchmark` with independent judges."""
