"""What the package needs of the machine: files that are whole, what is installed, a bar."""
