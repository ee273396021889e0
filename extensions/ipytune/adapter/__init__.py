"""What becomes of an adapter: merged into a plain model, written as GGUF, proved alike, described, served."""
