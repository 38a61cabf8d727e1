"""Units with gates."""
