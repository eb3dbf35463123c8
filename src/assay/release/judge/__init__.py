"""Whether the candidate goes on: guards, tests that may be looked at as often as one likes, and what they say.

`judge.Judge` is the interface; `docs/judge.md` derives the tests and shows their error rates.
"""
