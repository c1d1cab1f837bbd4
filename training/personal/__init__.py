"""A person's own voice: prompts to read, checks of what was read, and the folder that keeps it."""
