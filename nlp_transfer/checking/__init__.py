"""What is wrong with labelled data, found before the money is spent on training."""
