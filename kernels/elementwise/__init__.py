"""Functions of the elements at one place: activations, arithmetic."""
