"""Checks of a whole server from outside: under load, and by a browser."""
