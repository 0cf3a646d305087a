"""The original libraries by their own words."""
