"""Real processes at toy size: launches, and one row for each claim about them."""
