"""Which number format a CPU is fast in is read from its features, and a machine without such a list is no error."""

from pathlib import Path

import pytest

from ipytune.processor import bfloat16_pays


@pytest.mark.parametrize(
    ("vendor", "flags", "pays"),
    [
        ("AuthenticAMD", "fma avx512f avx512_bf16", True),
        ("GenuineIntel", "fma avx512f avx512_bf16", False),
        ("GenuineIntel", "avx512_bf16 amx_bf16 amx_tile", True),
        ("AuthenticAMD", "fma avx2", False),
    ],
)
def test_bfloat16_is_chosen_where_it_was_measured_to_be_faster(
    tmp_path: Path, vendor: str, flags: str, pays: bool
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags} sse\n\n" * 2)
    assert bfloat16_pays(tmp_path) is pays


def test_without_a_list_of_features_it_is_float32(tmp_path: Path) -> None:
    assert not bfloat16_pays(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd bf16\n")
    assert not bfloat16_pays(tmp_path)
