"""What the libraries would print into a log or a notebook that nobody asked for."""

from __future__ import annotations

import warnings

from transformers.utils import logging


def quiet_libraries() -> None:
    """No progress bars of loading, and no warning of PEFT 0.21 calling transformers 5.23 by an old name."""
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
