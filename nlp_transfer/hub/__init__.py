"""Models on the Hub: push, pull, and the card."""
