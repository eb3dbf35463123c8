"""The container image: what decides it, how it is built, and whether it is still what was built."""
