"""The LSTM over sequences."""
