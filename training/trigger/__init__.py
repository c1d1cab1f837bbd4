"""Making and measuring triggers: `tokenlm trigger train` and `tokenlm trigger evaluate`."""
