"""Who has which version: the split, the fronts that hold it, what they log, and copies for the shadow."""
