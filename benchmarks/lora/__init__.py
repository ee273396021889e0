"""What the benchmarks of fine-tuning share: ragged chat data, models from a config, and the trainers that are compared."""
