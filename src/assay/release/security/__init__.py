"""Who may ask a version, and how often: tokens, signed requests, limits per user. Knows nothing of HTTP servers."""
