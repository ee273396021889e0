"""Scoring a model's answers."""
