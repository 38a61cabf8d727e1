"""The user's data into the mini-batch, and results back."""
