"""Whether a node can do what the experiment asks, before anything trains."""
