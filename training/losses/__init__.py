"""Losses as pure functions that return sums over valid targets."""
