"""Models of Keras converted by every route, and the speed of what comes of it."""
