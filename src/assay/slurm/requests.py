"""What the rules ask of a cluster, where neither the experiment nor the site's profile says."""

MINUTES = {
    "prepare_data": 60,
    "train": 240,
    "train_again": 240,
    "train_trial": 240,
    "train_trial_to_rung": 240,
    "evaluate": 60,
    "evaluate_again": 60,
    "profile": 60,
    "profile_again": 60,
    "trace": 60,
}
"""By rule. A training that needs longer goes on from its checkpoint; the others ask for more after running out of time."""
DEFAULT_MINUTES = 60
"""For all other rules, by the profile."""
DEFAULT_MB = 4000
MB, MB_PER_THREAD = 4096, 2048
"""For a job that has bounds: what PyTorch with CUDA holds by itself, and room to work."""
RETRIES = 3
