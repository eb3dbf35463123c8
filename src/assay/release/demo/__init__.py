"""`make release-demo`: two models, real servers and simulated users, from the first shadow to the end."""
