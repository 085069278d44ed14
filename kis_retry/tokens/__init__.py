"""The token: what it is, where it is shared, how one is got, and the one refresh for everybody."""
