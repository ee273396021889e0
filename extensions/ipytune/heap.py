"""Large pages for the tensors of a training process on a CPU: asked for before it begins, for glibc reads it once.

A tensor of some megabytes is a thousand small pages, and each is looked up by the processor and cleared by the kernel.
Asked for large pages, glibc (2.35 and later) marks its heap for the kernel, which gives them where it can (transparent
huge pages on `madvise` or `always`). SmolLM2-135M, LoRA, rows of 1,024 tokens, one core: 16.2 s of processor time a
step without, 12.5 with; 170,000 page faults a step without, 2,400 with; the same peak memory.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
LARGE = 4 * 2**20  # bytes: a page beyond that (512 MiB on an aarch64 kernel of 64 KiB pages) wastes more than it saves
_PAGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def use_large_pages(environment: MutableMapping[str, str], page_file: Path = _PAGE) -> None:
    """Asks for them in a process's environment, unless the user decided or this machine has none of a useful size."""
    chosen = environment.get("GLIBC_TUNABLES", "")
    if TUNABLE in chosen or not 0 < _size(page_file) <= LARGE:
        return
    environment["GLIBC_TUNABLES"] = ":".join(filter(None, [chosen, f"{TUNABLE}=1"]))


def _size(page_file: Path) -> int:
    try:
        return int(page_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
