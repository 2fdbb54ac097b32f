"""What a task is: labels, encoding, loss, predictions and score."""
