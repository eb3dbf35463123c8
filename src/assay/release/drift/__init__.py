"""Whether inputs are what the model was trained on, and predictions of the two versions what they are to each other.

`monitor.Drift` is the interface; `docs/drift.md` says what it compares and how often it is wrong.
"""
