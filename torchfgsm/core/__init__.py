"""The attack itself: a recipe, and the engine that runs any."""
