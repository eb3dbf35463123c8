"""From records to a verdict: paired statistics, the contract's check, and the sentences that say it."""
