"""Imports of CosyVoice: published folders as ordinary bundles."""
