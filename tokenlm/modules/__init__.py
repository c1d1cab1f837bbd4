"""Building blocks of the networks; every streaming one takes an explicit state."""
