"""What the machine did while a run computed: a sampler beside it, its summary, energy, and gates on validity."""
