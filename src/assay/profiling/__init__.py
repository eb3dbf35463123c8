"""What an arm costs to run: time, memory, operations, measured in fresh processes."""
