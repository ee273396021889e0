"""The trainer computes what plain transformers computes: packed, one at a time, fused, in float32 and bfloat16."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ipytune.data.pack import Row, pack, row_of
from ipytune.data.template import Tokens
from ipytune.lora import attention, linear
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.lora.loop import accumulate, learned_tokens
from ipytune.lora.loss import summed_loss
from ipytune.lora.model import Trainable, with_adapter
from ipytune.lora.optimiser import adamw, set_rate
from tests.ipytune.lora import tiny

CPU = torch.device("cpu")
GOLDEN = (4.0361, 3.9447, 3.9231, 3.9244)
CONFIG = RunConfig(train_file=Path("train.jsonl"), lora=LoraSettings(rank=4), seed=1, learning_rate=1e-2)


def conversation(length: int, seed: int) -> Tokens:
    source = random.Random(seed)
    return Tokens(
        tuple(source.randrange(len(tiny.WORDS)) for _ in range(length)), (False,) * 4 + (True,) * (length - 4)
    )


EXAMPLES = [conversation(length, seed) for seed, length in enumerate((9, 17, 12, 30, 6))]
ROWS = pack(EXAMPLES, row_tokens=48)
ALONE = [row_of([tokens]) for tokens in EXAMPLES]


def trainable(dtype: torch.dtype = torch.float32, packed: bool = True, config: RunConfig = CONFIG) -> Trainable:
    base = tiny.model().to(dtype)
    base.set_attn_implementation(attention.register() if packed else "sdpa")
    model = with_adapter(base, config, name="tiny")
    torch.manual_seed(2)
    for name, parameter in model.peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # zero at first: the adapter would not show
    return model


def plain_loss(model: Trainable, tokens: Tokens) -> Tensor:
    """Sum over the learned tokens, by the model's own forward and transformers' labels."""
    ids = torch.tensor([tokens.ids])
    labels = torch.where(torch.tensor([tokens.learned]), ids, -100)
    loss: Tensor = model.peft(input_ids=ids, labels=labels).loss * sum(tokens.learned)
    return loss


def gradients(model: Trainable, loss: Tensor) -> dict[str, Tensor]:
    model.peft.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.peft.named_parameters() if p.grad is not None}


def total(model: Trainable, rows: list[Row]) -> Tensor:
    return torch.stack([model.loss(row) for row in rows]).sum()


def test_packed_equals_alone_equals_plain_transformers() -> None:
    model, plain = trainable(), trainable(packed=False)
    for module in plain.peft.modules():
        module.__dict__.pop("forward", None)  # PEFT's own layers, unfused
    expected = torch.stack([plain_loss(plain, tokens) for tokens in EXAMPLES]).sum()
    wanted = gradients(plain, expected)
    assert len(ROWS) < len(ALONE)
    for rows in (ROWS, ALONE):
        loss = total(model, rows)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        found = gradients(model, loss)
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():  # small elements are differences of large ones: rounded as these are
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * scale)


def test_a_conversation_does_not_see_its_neighbours_in_the_row() -> None:
    model = trainable()
    together = total(model, [row_of(EXAMPLES)])
    changed = [*EXAMPLES[:-1], conversation(len(EXAMPLES[-1]), seed=99)]
    after = total(model, [row_of(changed)])
    difference = model.loss(row_of(changed[-1:])) - model.loss(row_of(EXAMPLES[-1:]))
    torch.testing.assert_close(after - together, difference, rtol=1e-4, atol=1e-4)


def test_packing_is_refused_when_tokens_mix_outside_attention() -> None:
    model = trainable()
    assert model.packs
    inner = model.backbone.embed_tokens  # type: ignore[union-attr]
    model.backbone.embed_tokens = Shifting(inner)  # type: ignore[assignment,arg-type]
    assert not attention.packs_exactly(model.backbone, len(tiny.WORDS), CPU)


class Shifting(torch.nn.Module):
    """Adds each token's predecessor, as a convolution would: across the edges of conversations too."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Tensor:
        states: Tensor = self.inner(ids)
        return states + F.pad(states, (0, 0, 1, 0))[:, :-1]


def test_bfloat16_base_trains_float32_adapters_close_to_float32() -> None:
    exact, rounded = trainable(), trainable(torch.bfloat16)
    assert {p.dtype for p in rounded.parameters} == {torch.float32}
    assert rounded.head.dtype == torch.bfloat16
    torch.testing.assert_close(total(rounded, ROWS), total(exact, ROWS), rtol=2e-2, atol=0.5)


def test_every_linear_layer_is_fused_and_the_head_is_not_adapted() -> None:
    model = trainable()
    assert linear.fuse(model.peft) == 2 * 7
    assert not any("lm_head" in name for name, p in model.peft.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("per_chunk", [1, 3, 64])
def test_the_fused_loss_and_its_gradient_are_cross_entropy(per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipytune.lora.loss.LOGITS_PER_CHUNK", {"cpu": per_chunk * 11})
    torch.manual_seed(0)
    head, targets = torch.randn(11, 8), torch.randint(11, (7,))
    hidden, same = (torch.randn(7, 8, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    loss = summed_loss(hidden, head, targets) / 7
    expected = F.cross_entropy(same @ head.T, targets)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(hidden.grad, same.grad)


def test_the_step_is_normalised_by_all_its_learned_tokens() -> None:
    """Splitting a step into more rows changes nothing: not a mean of means."""
    results = []
    for rows in (ROWS, ALONE):
        model = trainable()
        optimizer = torch.optim.SGD(model.parameters, lr=0.1)
        loss = accumulate(model, rows, learned_tokens(EXAMPLES))
        optimizer.step()
        results.append((loss, [p.detach().clone() for p in model.parameters]))
    (first, ours), (second, theirs) = results
    torch.testing.assert_close(first, second)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_golden_losses() -> None:
    """Four steps on a fixed model: a change of these numbers is a change of what users train."""
    base = tiny.model()
    base.set_attn_implementation(attention.register())
    model = with_adapter(base, CONFIG, name="tiny")
    optimizer = adamw(model.named_parameters, CONFIG)
    losses = []
    for _ in range(4):
        set_rate(optimizer, CONFIG.learning_rate)
        losses.append(float(accumulate(model, ROWS, learned_tokens(EXAMPLES))))
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert losses == pytest.approx(GOLDEN, abs=2e-3)


@pytest.mark.parametrize("which", ["half", "all"])
def test_recomputing_activations_changes_no_gradient(which: str) -> None:
    kept, recomputed = trainable(), trainable()
    recomputed.recompute(which)
    assert sum(layer.gradient_checkpointing for layer in recomputed.layers) == {"half": 1, "all": 2}[which]
    wanted, found = (gradients(model, total(model, ROWS)) for model in (kept, recomputed))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=0)


def test_compiled_layers_compute_the_same_whatever_the_lengths_in_the_row() -> None:
    plain, compiled = trainable(), trainable()
    compiled.compile(backend="aot_eager")  # the graphs without code generation: no C++ compiler is needed
    torch._dynamo.utils.counters.clear()
    for rows in (ROWS, ALONE):
        wanted, found = (gradients(model, total(model, rows)) for model in (plain, compiled))
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert not torch._dynamo.utils.counters["recompiles"]


def test_lora_plus_gives_b_its_own_rate() -> None:
    config = CONFIG.model_copy(update={"lora": LoraSettings(rank=4, plus_ratio=16)})
    model = trainable(config=config)
    optimizer = adamw(model.named_parameters, config)
    set_rate(optimizer, 1e-3)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[p] for name, p in model.named_parameters if "lora_B" in name} == {1.6e-2}
    assert {rates[p] for name, p in model.named_parameters if "lora_A" in name} == {1e-3}
