"""Texts that are drawn: from a grammar, made harder, or such that every word of them counts."""
