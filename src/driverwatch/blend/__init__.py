"""Averages of predictions and their scores."""
