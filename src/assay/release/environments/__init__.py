"""Where versions run: this environment, a virtual one made from a bundle's lock, or an image."""
