"""Tar shards: precomputed tokens, embeddings, mels and sound, with their metadata beside them."""
