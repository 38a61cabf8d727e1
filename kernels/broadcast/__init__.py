"""A matrix with a row or a column: sums, products, PReLU."""
