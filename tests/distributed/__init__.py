"""`scripts/check_distributed`: real processes at toy size, one row of a table for each claim."""
