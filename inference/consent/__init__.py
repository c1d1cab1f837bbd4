"""Consent to voices: who agreed to a voice of theirs, how that is known, and what is stored of it.

`settings` has the policy, `challenge` sentences with drawn words; `verification` listens to them.
`evidence` is what a voice keeps, signed; `manager` is what servers and commands use of all that.
"""
