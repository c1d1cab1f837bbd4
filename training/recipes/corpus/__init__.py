"""The synthetic corpus: text from a grammar, spoken by classic engines as many speakers.

`config` says who speaks and how much, `plan` turns that into a list of utterances (text from
`text`, virtual speakers from `speakers`), `build` has the engines of `engines` speak it and
`finish` makes of their audio what is stored; `check` measures the result.
"""
