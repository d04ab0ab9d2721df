"""Batches, stages and one fold's training."""
