"""Accuracy and loss under attack, over a loader and over processes."""
