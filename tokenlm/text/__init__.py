"""Text: from what is written to the ids that a speech LM reads.

A text, whole or in pieces, goes through `normalize`: English through its passes (`numbers`,
`measures`, `calendar`, `letters` and `symbols`), raw text as it is. Then `segmentation` cuts words
into segments, and `tokenizers` encode them, with `pronunciation` for phones.
`alphabet` and `errors` compare what a recogniser reads with a text.
"""
