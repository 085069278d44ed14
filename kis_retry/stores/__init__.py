"""Where a token is shared."""
