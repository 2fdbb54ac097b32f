"""Models of others made ours. What such a folder does not hold, and we need, is asked for, or said."""
