"""CleverHans' names and signatures: `v3` (3.1.0), `tf2` and `torch` (4.0.0)."""
