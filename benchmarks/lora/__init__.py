"""What the benchmarks of fine-tuning share: ragged chat data, models from a config, the trainers compared."""
