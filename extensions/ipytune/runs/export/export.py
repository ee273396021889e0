"""`export(run, to, out)`: a folder that trains the same adapter elsewhere, each main file with its command on top."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import yaml
from jinja2 import Environment, StrictUndefined, Template

from ipytune.lora.config import RunConfig
from ipytune.runs.export.as_python import as_python
from ipytune.runs.export.bundle import COPIED_BYTES, Bundle, bundle, requirements
from ipytune.runs.launch import slurm_script
from ipytune.runs.launch.manifest import job_name, manifest
from ipytune.runs.launch.settings import KubernetesSettings, SlurmSettings
from ipytune.runs.launch.slurm_script import comment
from ipytune.runs.process import Run, versions

Form = Literal["yaml", "script", "sbatch", "kubernetes"]
FORMS: tuple[Form, ...] = get_args(Form)
EXAMPLE_IMAGE, EXAMPLE_CLAIM = "registry.example.org/team/ipytune:latest", "my-volume"

_jinja = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)
_jinja.filters.update(comment=comment)


def export(
    run: Run | RunConfig | Path | str,
    to: Form,
    out: Path | str,
    *,
    slurm: SlurmSettings | None = None,
    kubernetes: KubernetesSettings | None = None,
    copied_bytes: int = COPIED_BYTES,
) -> Path:
    """Writes the folder `out` and returns its main file.

    run: a run, the directory of one, or a configuration. to: `yaml` (config.yaml), `script` (train.py), `sbatch`
    (job.sbatch and config.yaml), `kubernetes` (job.yaml and config.yaml); each with requirements.txt and a copy of data
    up to `copied_bytes` a file. Raises ValueError when `out` holds something or `to` is none of these, ConfigError when
    a data file is missing or is no longer the one that was trained on, FileNotFoundError when `run` is no run.
    """
    if to not in FORMS:
        raise ValueError(f"to is {to!r}; it can be {', '.join(FORMS)}.")
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty. Name a new folder for the export.")
    config = _configuration(run)
    pinned = config.pinned()
    pinned = pinned.model_copy(update={"versions": pinned.versions or versions()})
    bundled = bundle(pinned, copied_bytes)
    texts = _texts(bundled, to, slurm or _slurm_of(pinned), kubernetes, folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    bundled.copy_into(folder)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(iter(texts))


def _configuration(run: Run | RunConfig | Path | str) -> RunConfig:
    if isinstance(run, RunConfig):
        return run
    return (run if isinstance(run, Run) else Run.open(run)).config


def _slurm_of(config: RunConfig) -> SlurmSettings:
    return SlurmSettings(gpus_per_node=0 if config.device == "cpu" else 1)


def _texts(
    bundled: Bundle, to: Form, slurm: SlurmSettings, kubernetes: KubernetesSettings | None, name: str
) -> dict[str, str]:
    """File name -> text; the main file first. Pure."""
    config = bundled.config
    shared = {"requirements.txt": requirements(config, config.versions)}
    if to == "script":
        return {"train.py": script_text(config, bundled.facts), **shared}
    alone = "ipytune train config.yaml --run-dir run"
    if to == "yaml":
        return {"config.yaml": yaml_text(config, alone, bundled.facts), **shared}
    if to == "sbatch":
        settings = yaml_text(config, f"sbatch job.sbatch   (or, without Slurm: {alone})", bundled.facts)
        return {"job.sbatch": slurm_script.exported(slurm, bundled.facts), "config.yaml": settings, **shared}
    chosen = kubernetes or KubernetesSettings(image=EXAMPLE_IMAGE, claim=EXAMPLE_CLAIM, gpus=slurm.gpus_per_node)
    settings = yaml_text(config, f"kubectl create -f job.yaml   (or, without Kubernetes: {alone})", bundled.facts)
    return {"job.yaml": manifest_text(chosen, name, bundled.facts), "config.yaml": settings, **shared}


def yaml_text(config: RunConfig, command: str, facts: Sequence[str]) -> str:
    """config.yaml: every setting, defaults too; paths relative to the file."""
    head = [f"# Run it with:  {comment(command)}", *(f"# {comment(fact)}" for fact in facts)]
    return "\n".join(head) + "\n" + config.as_yaml()


def script_text(config: RunConfig, facts: Sequence[str]) -> str:
    """train.py: the settings as Python, the training, and the first use of the adapter."""
    return _template("train.py.j2").render(settings=as_python(config), facts=facts)


def manifest_text(settings: KubernetesSettings, name: str, facts: Sequence[str]) -> str:
    """job.yaml: the Job, and above it what has to be on the volume."""
    job = job_name(name)
    folder = f"{settings.mount.rstrip('/')}/{job}"
    body = manifest(settings, job, [f"{folder}/run", f"--config={folder}/config.yaml", f"--train={settings.trainers}"])
    body["metadata"]["generateName"] = body["metadata"].pop("name") + "-"  # so that it can be created again, to go on
    document = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    return _template("job.yaml.j2").render(document=document, folder=folder, job=settings, facts=facts)


def _template(name: str) -> Template:
    return _jinja.from_string((files(__package__) / "templates" / name).read_text(encoding="utf-8"))
