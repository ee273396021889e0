"""A site at work: its targets and their capacity readings, one of each per hub process, shared by all spawners."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from .capacity import Capacity, CapacityBoard
from .placement import Placement, place
from .request import SpawnRequest, candidates
from .session import new_hub_name
from .site import LocalTarget, Site, SlurmTarget, load_site
from .targets.base import Target


class Deployment:
    """The targets of `site`. `callback_url` is where nodes announce their port; `state_dir` holds homes and logs."""

    def __init__(self, site: Site, state_dir: Path, callback_url: str) -> None:
        self.site = site
        self.hub_name = _hub_name(state_dir)
        site_dir = site.path.parent if site.path else Path.cwd()
        self.targets: dict[str, Target] = {}
        for spec in site.targets:
            # imported here: a site needs only what its own targets need
            if isinstance(spec, LocalTarget):
                from .targets.local import Local

                self.targets[spec.name] = Local(spec, state_dir, site_dir)
            elif isinstance(spec, SlurmTarget):
                from .targets.slurm import Slurm

                self.targets[spec.name] = Slurm(spec, callback_url)
            else:
                from .targets.kubernetes import Kubernetes

                self.targets[spec.name] = Kubernetes(spec)
        self.board = CapacityBoard({name: target.read for name, target in self.targets.items()})

    async def capacities(self, request: SpawnRequest, user_groups: set[str]) -> dict[str, Capacity]:
        """Readings of the targets that `request` may go to."""
        profile, environment = self.site.profile(request.profile), self.site.environment(request.environment)
        return await self.board.read_all(candidates(self.site, profile, environment, user_groups))

    async def place(self, request: SpawnRequest, user_groups: set[str]) -> Placement:
        """place() over fresh readings. Raises NoTarget."""
        return place(request, self.site, await self.capacities(request, user_groups), user_groups)


def _hub_name(state_dir: Path) -> str:
    """This hub's name in marks, made at its first start."""
    path = state_dir / "hub_name"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new_hub_name())
    return path.read_text().strip()


@lru_cache
def deployment(site: Path, state_dir: Path, callback_url: str) -> Deployment:
    """The one deployment of a site file in this process. Raises SiteError."""
    return Deployment(load_site(site), state_dir, callback_url)
