"""Fixtures of published folders, for the tests of this folder."""

from __future__ import annotations

from published_folder import graphs, text_folder, tokenizer

__all__ = ["graphs", "text_folder", "tokenizer"]
