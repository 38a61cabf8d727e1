"""The simple recurrent net over sequences."""
