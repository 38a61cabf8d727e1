"""The GRU over sequences."""
