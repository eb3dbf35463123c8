"""A trained arm on the test split: predictions, their quality, and the record of both."""
