"""The parts of a training step whose data are loaded. Free of PyTorch."""

WAIT, TRANSFER, AUGMENT = "wait", "transfer", "augment"
FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"
PARTS = (WAIT, TRANSFER, AUGMENT, FORWARD, BACKWARD, OPTIMIZER)
"""In their order: until the images of a batch are gathered; their way to the device, where they have one; augmentation and
normalisation on the device; forward pass and loss; backward pass; update of the weights and of their average."""
