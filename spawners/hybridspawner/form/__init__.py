"""The spawn page's form: profile cards, target, runtime, and the rarer fields folded away.

The HTML holds only what the site file says; what is free now comes from the offers handler and is refreshed by the
page's script, so no target is ever asked while a page is rendered.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jupyterhub.utils import url_path_join

from ..duration import format_duration, parse_duration, spoken_duration
from ..request import AUTO, InvalidRequest, SpawnRequest, candidates, open_to, validate
from ..site import Profile, Site, SlurmTarget

if TYPE_CHECKING:
    from ..spawner import HybridSpawner

STATIC = files(__package__) / "static"
OFFERS_PATH = "api/hybridspawner/offers"
STATIC_PATH = "hybridspawner/static"
_STEPS = (
    "00:15:00",
    "00:30:00",
    "01:00:00",
    "02:00:00",
    "04:00:00",
    "08:00:00",
    "12:00:00",
    "1-00:00:00",
    "2-00:00:00",
)
_jinja = Environment(loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined)
_jinja.filters["spoken"] = lambda text: spoken_duration(parse_duration(text))
_version = hashlib.sha256(
    b"".join(f.read_bytes() for f in sorted(STATIC.iterdir(), key=str) if f.is_file())
).hexdigest()[:12]


def hardware(profile: Profile) -> str:
    """A profile's hardware in a few words: "4 cores, 8 GB", "2 nodes, each: 4 GH200 GPUs, 288 cores, 800 GB"."""
    r = profile.resources
    gpus = f"{r.gpus} {r.gpu_type.upper() + ' ' if r.gpu_type else ''}GPU{'s' if r.gpus > 1 else ''}" if r.gpus else ""
    parts = [gpus, f"{r.cpus} core{'s' if r.cpus > 1 else ''}", f"{r.memory_gb:g} GB"]
    each = ", ".join(part for part in parts if part)
    return f"{r.nodes} nodes, each: {each}" if r.nodes > 1 else each


def runtimes(profile: Profile, chosen: str | None = None) -> list[str]:
    """Run times to offer: round ones up to the limit, the limit, the default, and the one chosen before."""
    limit = parse_duration(profile.runtime.max)
    wanted = {*_STEPS, profile.runtime.max, profile.runtime.default, *([chosen] if chosen else [])}
    return [format_duration(s) for s in sorted({parse_duration(text) for text in wanted}) if s <= limit]


def preselected(stored: Any, site: Site, user_groups: set[str]) -> SpawnRequest:
    """The user's last request if it still holds, else the site's defaults: stale stored options are normal."""
    try:
        return validate(stored or {}, site, user_groups)
    except InvalidRequest:
        return validate({}, site, user_groups)


def page_data(site: Site, user_groups: set[str]) -> dict[str, Any]:
    """What the page's script needs: per profile its run times, environments and their targets."""
    environments = [e for e in site.environments if open_to(e.groups, user_groups)]
    return {
        profile.name: {
            "runtimes": [{"value": r, "label": spoken_duration(parse_duration(r))} for r in runtimes(profile)],
            "runtime": format_duration(parse_duration(profile.runtime.default)),
            "environments": {
                e.name: targets
                for e in environments
                if (profile.environments is None or e.name in profile.environments)
                and (targets := candidates(site, profile, e, user_groups))
            },
        }
        for profile in site.profiles
        if open_to(profile.groups, user_groups)
    }


def render_form(spawner: HybridSpawner) -> str:
    """The form as HTML for JupyterHub's page; every value escaped."""
    site, groups = spawner.deployment.site, spawner.user_groups
    try:
        chosen = preselected(spawner.orm_spawner.user_options, site, groups)
    except InvalidRequest as error:
        return _jinja.from_string('<p class="alert alert-warning">Nothing is offered to you here. {{ e }}</p>').render(
            e=error
        )
    data = page_data(site, groups)
    slurm = [t for t in site.targets if isinstance(t, SlurmTarget) and open_to(t.groups, groups)]
    base = spawner.hub.base_url
    return _jinja.get_template("form.html").render(
        profiles=[p for p in site.profiles if data.get(p.name, {}).get("environments")],
        environments=[e for e in site.environments if open_to(e.groups, groups)],
        targets=[t for t in map(site.target, site.preferred) if open_to(t.groups, groups)],
        chosen=chosen,
        auto=AUTO,
        hardware=hardware,
        runtimes=runtimes(site.profile(chosen.profile), chosen.runtime),
        slurm=slurm,
        slurm_names=json.dumps([t.name for t in slurm]),
        choices={f: _choices(slurm, f"{f}s") for f in ("account", "partition", "reservation")},
        data=json.dumps(data),
        offers_url=url_path_join(base, OFFERS_PATH),
        static_url=url_path_join(base, STATIC_PATH),
        version=_version,
        last_end=spawner.last_end,
    )


def _choices(targets: list[SlurmTarget], field: str) -> list[str]:
    return sorted({value for target in targets for value in getattr(target, field) or ()})
