"""Sets from options, files and grids: how many, in which order, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ipytune.batch.parameters import ParameterError, as_yaml, from_yaml
from ipytune.batch.scripts import indices
from ipytune.batch.sets import build, read

DEFAULTS = {"RANK": 8, "RATE": 1e-4, "NAME": "a", "ON": False, "OUT_DIR": "out"}

values = st.lists(st.integers(-9, 9), min_size=1, max_size=4)


@given(values, values, st.lists(st.booleans(), max_size=3))
def test_a_grid_is_the_product_for_each_row(ranks: list[int], rates: list[int], rows: list[bool]) -> None:
    grid = [f"RANK={','.join(map(str, ranks))}", f"RATE={','.join(map(str, rates))}"]
    made = build(DEFAULTS, [("NAME", "007")], [{"ON": on} for on in rows], grid)
    expected = [
        {"NAME": "007", **({"ON": on} if on is not None else {}), "RANK": rank, "RATE": float(rate)}
        for on, rank, rate in itertools.product(rows or [None], ranks, rates)
    ]
    assert made == expected


def test_nothing_given_is_one_set() -> None:
    assert build({}) == [{}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fixed": [("RANK", "8"), ("RANK", "9")]}, "-p RANK is given twice"),
        ({"grid": ["RANK=8", "RANK=9"]}, "--grid RANK is given twice"),
        ({"fixed": [("RANK", "8")], "grid": ["RANK=9"]}, "--grid RANK: it is given by -p too"),
        ({"rows": [{"RANK": 8}], "grid": ["RANK=9"]}, "--grid RANK: it is given by --set too"),
        ({"rows": [{"RANK": 8}], "fixed": [("RANK", "9")]}, "-p RANK: it is given by --set too"),
        ({"grid": ["RANK"]}, "NAME=a,b,c is expected"),
        ({"grid": ["RANK=[1"]}, "brackets"),
        ({"grid": ["RNK=1,2"]}, "Did you mean RANK?"),
        ({"grid": ["RANK=" + ",".join(map(str, range(40))), "RATE=" + ",".join(map(str, range(40)))]}, "1600 sets"),
        ({"rows": [{"RANK": 1}, {"RANK": "x"}, {"RATE": "y"}]}, "set 1: RANK is 'x'"),
        ({"rows": [{"RANK": 1}, {"RANK": "x"}, {"RATE": "y"}]}, "\nset 2: RATE is 'y'"),
        ({"fixed": [("OUT_DIR", "/o")], "grid": ["RANK=1,2"]}, "OUT_DIR is /o for several sets"),
    ],
)
def test_what_is_refused(options: dict, words: str) -> None:
    with pytest.raises(ParameterError) as refused:
        build(DEFAULTS, **options)
    assert words in str(refused.value)


def test_a_list_in_a_grid_is_yaml() -> None:
    assert build({"L": [1]}, grid=["L=[[1, 2], [3]]"]) == [{"L": [1, 2]}, {"L": [3]}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.yaml", "- {RANK: 8, RATE: 2e-4}\n- {NAME: '1'}\n"),
        ("s.json", '[{"RANK": 8, "RATE": 0.0002}, {"NAME": "1"}]'),
        ("s.jsonl", '{"RANK": 8, "RATE": 0.0002}\n\n{"NAME": "1"}\n'),
        ("s.csv", "\ufeffRANK, RATE, NAME\n8,2e-4,\n,,1\n"),
    ],
)
def test_the_same_sets_from_every_kind_of_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read(tmp_path / name, DEFAULTS) == [{"RANK": 8, "RATE": 2e-4}, {"NAME": "1"}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.txt", "", ".yaml, .json, .jsonl or .csv is expected"),
        ("s.yaml", "a: 1", "a list of sets is expected"),
        ("s.yaml", "[", "cannot be read"),
        ("s.json", "[]", "a list of sets is expected"),
        ("s.csv", "RANK,RANK\n1,2\n", "two columns are named RANK"),
        ("s.csv", "RANK\n1,2\n", "more cells"),
        ("s.csv", "RANK\n", "no line below"),
        ("s.csv", "", "first line"),
        ("s.csv", "RNK\n1\n", "Did you mean RANK?"),
    ],
)
def test_a_file_that_is_no_list_of_sets(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError) as refused:
        read(tmp_path / name, DEFAULTS)
    assert words in str(refused.value) and str(tmp_path / name) in str(refused.value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_a_set_survives_the_way_to_its_job(given_set: dict) -> None:
    """parameters.yaml is read by papermill's loader, to which 1e-05 would be a text."""
    text = as_yaml(given_set)
    assert yaml.safe_load(text) == given_set == from_yaml(text)
    assert json.dumps(yaml.safe_load(text)) == json.dumps(given_set)


@given(st.sets(st.integers(0, 50), min_size=1))
def test_indices_name_every_set_once(numbers: set[int]) -> None:
    named: list[int] = []
    for part in indices(sorted(numbers)).split(","):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)
