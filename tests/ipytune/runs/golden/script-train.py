"""Run it with:  python train.py

Fine-tunes a model with LoRA. Run it again to go on after an interruption; Ctrl-C stops after the current step and keeps
what was learned. All that the run writes is in the folder `run` beside this file.
"""

# Trained with Python 3.11.9
# Trained with ipytune 0.1.0
# Trained with torch 2.13.0+cpu
# Trained with peft 0.21.2
# train_file: data/train.jsonl, sha256 75c9fdb6fa1dde7079ccc0205037e323aa71c495d1b4772bea80758356a9c4e4
# eval_file: data/eval.jsonl, sha256 15cf93cd23d071eb1d7579a6a32ed697bd76444549c69c2af09d0655a7ce5ffd

import sys
from pathlib import Path

from ipytune.lora.config import DataSettings, LoraSettings, RunConfig
from ipytune.models import resolve
from ipytune.runs import Run

HERE = Path(__file__).resolve().parent
RUN_DIR = HERE / "run"

CONFIG = ...


def train() -> Run:
    """A process of its own trains; this one follows it. The run directory holds its status, checkpoints and report."""
    run = Run.start(CONFIG, RUN_DIR, resume=(RUN_DIR / "config.yaml").exists())
    report = run.wait(on_status=lambda status: print(f"\r{status.phase} step {status.step}, loss {status.loss}", end=""))
    print(f"\nloss {report['first_loss']} -> {report['loss']}, held out {report['eval_loss']}: {run.adapter}")
    return run


def answer(run: Run, question: str) -> str:
    """The tuned model's greedy answer: what any program does to use the adapter, with transformers and peft alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve(CONFIG.model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), run.adapter).eval()
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model.generate(**prompt, max_new_tokens=128, do_sample=False)
    return tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


if __name__ == "__main__":
    trained = train()
    if len(sys.argv) > 1:  # python train.py "a question"
        print(answer(trained, sys.argv[1]))
