"""Full-batch descent: line search, conjugate gradients, L-BFGS."""
