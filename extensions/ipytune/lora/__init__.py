"""LoRA fine-tuning: its configuration, and the process that trains."""
