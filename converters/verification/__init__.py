"""A conversion compared with its original."""
