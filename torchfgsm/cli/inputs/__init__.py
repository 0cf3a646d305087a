"""What a command reads: models, rows and options."""
