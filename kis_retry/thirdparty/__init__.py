"""Protecting what others wrote."""
