"""Which engine, and on which GPUs: literal facts in, the choice and its reason out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints.engines.choose import choose, memory_share, parallel_size
from ipytune.endpoints.engines.facts import Facts, Gpu, Vllm
from ipytune.endpoints.engines.failure import ServeFailed
from ipytune.endpoints.engines.shape import Shape

GIB = 1024**3
SMALL = Shape(heads=32, key_value_heads=8, weight_bytes=2 * GIB)
H100 = [Gpu(str(index), 80 * GIB, 79 * GIB) for index in range(4)]
ON_GPU = Vllm(("vllm", "serve"), version="0.32.0", build="gpu")
ON_CPU = Vllm(("vllm", "serve"), build="cpu")


def test_vllm_on_a_gpu_is_the_best_there_is() -> None:
    choice = choose("auto", Facts(gpus=tuple(H100), vllm=ON_GPU), SMALL)
    assert choice.engine == "vllm" and [gpu.name for gpu in choice.gpus] == ["0"]
    assert choice.why == "vLLM 0.32.0 on GPU 0: many requests at once."


@pytest.mark.parametrize(
    ("facts", "gpus", "refuses", "why"),
    [
        (Facts(gpus=tuple(H100)), None, None, "transformers on GPU 0: vLLM is not installed here."),
        (Facts(vllm=ON_GPU), None, None, "needs a GPU"),
        (Facts(gpus=tuple(H100), vllm=ON_GPU), 0, None, "transformers on the CPU: the vLLM that is installed needs"),
        (Facts(gpus=tuple(H100), vllm=ON_CPU), None, None, "CPUs only"),
        (Facts(gpus=tuple(H100), vllm=ON_GPU), None, "vLLM serves no DoRA adapters.", "no DoRA"),
    ],
)
def test_where_vllm_cannot_transformers_does_and_says_why(
    facts: Facts, gpus: int | None, refuses: str | None, why: str
) -> None:
    choice = choose("auto", facts, SMALL, gpus=gpus, vllm_refuses=refuses)
    assert choice.engine == "transformers" and why in choice.why
    with pytest.raises(ServeFailed) as failed:
        choose("vllm", facts, SMALL, gpus=gpus, vllm_refuses=refuses)
    assert failed.value.remedy


def test_vllm_on_the_cpu_where_that_is_what_it_was_built_for() -> None:
    assert choose("auto", Facts(vllm=ON_CPU), SMALL).why.startswith("vLLM on the CPU")
    assert choose("auto", Facts(gpus=tuple(H100), vllm=ON_CPU), SMALL, gpus=0).engine == "vllm"


def test_the_engine_that_is_wanted_is_taken() -> None:
    choice = choose("transformers", Facts(gpus=tuple(H100), vllm=ON_GPU), SMALL)
    assert (choice.engine, len(choice.gpus)) == ("transformers", 1)


def test_with_neither_engine_it_says_how_to_get_one() -> None:
    with pytest.raises(ServeFailed, match=r"pip install 'ipytune\[serve\]'"):
        choose("auto", Facts(transformers=False), SMALL)


def test_more_gpus_than_the_session_has_are_refused() -> None:
    with pytest.raises(ServeFailed, match="8 GPUs are asked for, and this session has 4"):
        choose("auto", Facts(gpus=tuple(H100), vllm=ON_GPU), SMALL, gpus=8)


def test_the_gpu_with_the_most_free_memory_is_taken() -> None:
    busy = (Gpu("0", 80 * GIB, 10 * GIB), Gpu("1", 80 * GIB, 70 * GIB))
    assert [gpu.name for gpu in choose("auto", Facts(gpus=busy, vllm=ON_GPU), SMALL).gpus] == ["1"]


@pytest.mark.parametrize(
    ("shape", "most", "size"),
    [
        (SMALL, None, 1),
        (Shape(64, 8, 140 * GIB), None, 4),  # 70 thousand million parameters in 16 bits
        (Shape(32, 8, 60 * GIB), None, 2),
        (Shape(32, 8, 900 * GIB), None, 4),  # does not fit either: vLLM says by how much
        (SMALL, 4, 4),
        (SMALL, 3, 2),
        (Shape(9, 3, GIB), 4, 3),
        (Shape(14, 2, GIB), 4, 2),
        (Shape(7, 7, GIB), 4, 1),
        (Shape(12, 3, GIB), 4, 3),
        (Shape(0, 0, GIB), 4, 4),  # the configuration names no heads: vLLM decides
    ],
)
def test_over_how_many_gpus_a_model_is_split(shape: Shape, most: int | None, size: int) -> None:
    assert parallel_size(shape, H100, most) == size


def test_without_knowledge_of_the_memory_all_are_used() -> None:
    assert parallel_size(SMALL, [Gpu("0"), Gpu("1")]) == 2


@given(
    heads=st.integers(0, 128),
    key_values=st.integers(0, 128),
    weight=st.integers(0, 10**13),
    count=st.integers(1, 16),
    most=st.none() | st.integers(1, 16),
)
def test_a_split_divides_the_heads_and_is_never_more_than_asked(
    heads: int, key_values: int, weight: int, count: int, most: int | None
) -> None:
    gpus = [Gpu(str(index), 80 * GIB, 80 * GIB) for index in range(count)]
    size = parallel_size(Shape(heads, key_values, weight), gpus, most)
    assert 1 <= size <= min(count, most or count)
    assert heads % size == 0 or size == 1


@pytest.mark.parametrize(
    ("free", "share"), [(80, None), (75, None), (40, 0.47), (1, 0.05)], ids=["all", "nearly all", "half", "hardly any"]
)
def test_on_a_shared_gpu_less_is_taken_than_is_free(free: int, share: float | None) -> None:
    assert memory_share([Gpu("0", 80 * GIB, 80 * GIB), Gpu("1", 80 * GIB, free * GIB)]) == share


def test_without_knowledge_of_the_memory_the_share_is_vllms_own() -> None:
    assert memory_share([Gpu("0")]) is None and memory_share([]) is None
