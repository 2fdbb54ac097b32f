"""What a user sees of a run: progress, tables, pictures."""
