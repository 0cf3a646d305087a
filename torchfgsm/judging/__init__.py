"""Arrays against arrays: equal, or as near to float64 as the other."""
