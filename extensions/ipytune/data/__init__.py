"""Conversations: read, validated, rendered with the model's chat template, ordered and packed."""
