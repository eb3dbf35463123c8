"""A bundle: one trained model with all that it takes to serve it, and to know that it is served right."""
