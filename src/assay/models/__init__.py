"""Models: built-in, torchvision's, timm's and the user's own."""
