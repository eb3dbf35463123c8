"""Gray release: from the winner to all users, one careful step at a time."""
