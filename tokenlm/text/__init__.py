"""Text: from what is written to the ids that a speech LM reads.

English goes through `normalize` (its passes are in `numbers`, `measures`, `calendar`, `letters` and
`symbols`) or, in pieces, `incremental`; `frontend` chooses between that and raw text. Then
`segmentation` cuts words into segments, and `tokenizers` encode them, with `pronunciation` and
`homographs` for phones.
`alphabet` and `errors` compare what a recogniser reads with a text.
"""
