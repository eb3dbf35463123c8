"""Which versions there are, which of them is `champion` and which `candidate`, and which served whom, when and why."""
