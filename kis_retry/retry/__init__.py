"""Making a call again: the decorators, and what they are made of."""
