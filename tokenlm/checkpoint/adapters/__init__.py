"""Key tables of other systems whose weights can be imported."""
