"""Text: normalisation to spoken English, segmentation, tokenizers."""
