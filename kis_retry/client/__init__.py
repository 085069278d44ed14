"""`KisClient` and `AsyncKisClient`: the endpoints written once as flows, and two clients that drive them."""
