"""One library's configuration in the words of another."""
