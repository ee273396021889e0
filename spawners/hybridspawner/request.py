"""What a user asks for: one schema for the form, links, REST and papermill.

`validate` is the only way in. It takes whatever arrived (untrusted, any type), and either returns a `SpawnRequest`
whose every field exists at the site and is open to this user, or raises `InvalidRequest` naming the field, what is
wrong and what is allowed. Slurm's names must match `SLURM_NAME`, so no value can break out of a directive, a command
line or a template.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, StrictStr, ValidationError

from .duration import format_duration, parse_duration
from .site import Environment, Profile, Site, SlurmTarget

AUTO = "auto"
SHORTEST_LEASE, LONGEST_LEASE = 30, 3600
"""Seconds: shorter, and a slow renewal would end a session; longer, and a dead client's session costs too much."""
SLURM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", re.ASCII)
_NOTEBOOK = re.compile(r"[^\x00-\x1f\x7f\\\ud800-\udfff]{1,255}")  # half a surrogate pair is no text: it cannot be sent


class InvalidRequest(ValueError):
    """A field of the request cannot be used. `field`, `problem` and `allowed` make up the message."""

    def __init__(self, field: str, problem: str, allowed: str) -> None:
        self.field, self.problem, self.allowed = field, problem, allowed
        super().__init__(f"{field}: {problem}. Allowed: {allowed}.")


class SpawnRequest(BaseModel):
    """A validated request. Times in `HH:MM:SS` or `D-HH:MM:SS`; `target` is a target's name or `auto`.

    With a `lease` the session ends when nobody has renewed it for that long (`lease_watch`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: StrictStr
    environment: StrictStr
    target: StrictStr = AUTO
    runtime: StrictStr
    account: StrictStr | None = None
    partition: StrictStr | None = None
    reservation: StrictStr | None = None
    notebook: StrictStr | None = None
    lease: StrictStr | None = None

    @property
    def seconds(self) -> int:
        return parse_duration(self.runtime)

    @property
    def start_page(self) -> str | None:
        """The path of the notebook in a session, as a URL; None without one. Nothing in it is a format or a query."""
        return None if self.notebook is None else "/lab/tree/" + quote(self.notebook)

    @property
    def slurm_only(self) -> dict[str, str]:
        """The fields that only a Slurm target has, as far as they are set."""
        fields = {"account": self.account, "partition": self.partition, "reservation": self.reservation}
        return {name: value for name, value in fields.items() if value is not None}


def open_to(groups: Collection[str] | None, user_groups: Collection[str]) -> bool:
    """Whether something restricted to `groups` (None: everyone) is open to a user of `user_groups`."""
    return groups is None or not set(groups).isdisjoint(user_groups)


def candidates(site: Site, profile: Profile, environment: Environment, user_groups: Collection[str]) -> list[str]:
    """Names of the targets that this profile and environment may use for this user, in the order of the site file."""
    return [
        target.name
        for target in site.targets
        if (profile.targets is None or target.name in profile.targets)
        and target.name in environment.targets
        and open_to(target.groups, user_groups)
    ]


def normalise_form(form: dict[str, list[Any]]) -> dict[str, Any]:
    """Form or query fields (each a list) as a request: one value unpacked, an empty one left out, the rest as it is."""
    options: dict[str, Any] = {}
    for field, values in form.items():
        if field == "_xsrf":
            continue
        value = values[0] if len(values) == 1 else values
        if value != "":
            options[field] = value
    return options


def validate(options: Any, site: Site, user_groups: Collection[str] = ()) -> SpawnRequest:
    """The request that `options` makes at `site` for a user in `user_groups`; absent fields take the site's defaults.

    Raises InvalidRequest; never anything else, whatever `options` is.
    """
    if not isinstance(options, dict):
        raise InvalidRequest("user_options", "must be an object", ", ".join(SpawnRequest.model_fields))
    for field, value in options.items():
        if field not in SpawnRequest.model_fields:
            raise InvalidRequest(_shown(field), "unknown field", ", ".join(SpawnRequest.model_fields))
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(
                field, f"must be text, not {type(value).__name__}", _allowed_hint(field, site, user_groups)
            )
    given = {field: value for field, value in options.items() if value is not None}

    profiles = [p.name for p in site.profiles if open_to(p.groups, user_groups)]
    environments = [e.name for e in site.environments if open_to(e.groups, user_groups)]
    profile = site.profile(
        _one_of("profile", given.get("profile", _default(site.defaults.profile, profiles)), profiles)
    )
    suited = [
        e
        for e in environments
        if (profile.environments is None or e in profile.environments)
        and candidates(site, profile, site.environment(e), user_groups)
    ]
    environment = site.environment(
        _one_of("environment", given.get("environment", _default(site.defaults.environment, suited)), suited)
    )
    targets = candidates(site, profile, environment, user_groups)
    target = _one_of("target", given.get("target", AUTO), [AUTO, *targets])

    try:
        request = SpawnRequest(
            **{
                **given,
                "profile": profile.name,
                "environment": environment.name,
                "target": target,
                "runtime": _runtime(given.get("runtime"), profile),
                "lease": _lease(given.get("lease")),
            }
        )
    except ValidationError as error:  # e.g. text that is no valid Unicode
        fault = error.errors()[0]
        raise InvalidRequest(str(fault["loc"][0]), fault["msg"], "text") from None
    _check_slurm_fields(request, site, targets if target == AUTO else [target])
    _check_notebook(request.notebook)
    return request


def slurm_targets(request: SpawnRequest, site: Site, targets: Collection[str]) -> list[str]:
    """Those of `targets` on which all of the request's Slurm-only fields are allowed."""
    return [name for name in targets if not _refused(request, site.target(name))]


def partition_of(request: SpawnRequest, target: Any) -> str | None:
    """The partition that a job of this request goes to; None leaves it to Slurm, or where there is none."""
    if not isinstance(target, SlurmTarget):
        return None
    return request.partition or (target.partitions[0] if target.partitions else None)


def account_of(request: SpawnRequest, target: Any) -> str | None:
    """The account that pays for a job of this request; None leaves it to Slurm, or where there is none."""
    if not isinstance(target, SlurmTarget):
        return None
    return request.account or (target.accounts[0] if target.accounts else None)


def _refused(request: SpawnRequest, target: Any) -> tuple[str, str, str] | None:
    """(field, problem, allowed) of the first Slurm-only field that `target` refuses, or None."""
    for field, value in request.slurm_only.items():
        if not isinstance(target, SlurmTarget):
            return field, f"{target.title} is not a Slurm target and has no {field}s", "leave it out, or choose Slurm"
        listed: tuple[str, ...] | None = getattr(target, f"{field}s")
        if listed is not None and value not in listed:
            return field, f"{_shown(value)} is not offered on {target.title}", ", ".join(listed) or "none"
    return None


def _check_slurm_fields(request: SpawnRequest, site: Site, targets: list[str]) -> None:
    for field, value in request.slurm_only.items():
        if SLURM_NAME.fullmatch(value) is None:
            listed = sorted(
                {v for t in site.targets if isinstance(t, SlurmTarget) for v in getattr(t, f"{field}s") or ()}
            )
            rule = "letters, digits and _ . + - only, at most 64 characters, starting with a letter or digit"
            raise InvalidRequest(field, f"{_shown(value)} is not a name", ", ".join(listed) or rule)
    if request.slurm_only and not slurm_targets(request, site, targets):
        in_slurm_first = sorted(targets, key=lambda name: not isinstance(site.target(name), SlurmTarget))
        refused = _refused(request, site.target(in_slurm_first[0]))
        assert refused is not None
        raise InvalidRequest(*refused)


def _check_notebook(notebook: str | None) -> None:
    if notebook is None:
        return
    rule = "a path below your home directory, such as notebooks/01-first-session.ipynb"
    if _NOTEBOOK.fullmatch(notebook) is None:
        raise InvalidRequest("notebook", f"{_shown(notebook)} is not a path", rule)
    if notebook.startswith(("/", "~")) or ".." in notebook.split("/"):
        raise InvalidRequest("notebook", f"{_shown(notebook)} leaves the home directory", rule)


def _runtime(text: str | None, profile: Profile) -> str:
    limit = f"HH:MM:SS, at most {profile.runtime.max} for profile {profile.name}"
    if text is None:
        return profile.runtime.default
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InvalidRequest("runtime", f"{_shown(text)} {error}", limit) from None
    if seconds > parse_duration(profile.runtime.max):
        raise InvalidRequest("runtime", f"{_shown(text)} is over the limit", limit)
    return format_duration(seconds)


def lease_seconds(text: str) -> int:
    """Seconds of the lease in `text`. Raises InvalidRequest."""
    allowed = f"HH:MM:SS, {format_duration(SHORTEST_LEASE)} to {format_duration(LONGEST_LEASE)}"
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InvalidRequest("lease", f"{_shown(text)} {error}", allowed) from None
    if not SHORTEST_LEASE <= seconds <= LONGEST_LEASE:
        problem = "is too short" if seconds < SHORTEST_LEASE else "is too long"
        raise InvalidRequest("lease", f"{_shown(text)} {problem}", allowed)
    return seconds


def _lease(text: str | None) -> str | None:
    return None if text is None else format_duration(lease_seconds(text))


def _one_of(field: str, value: str, allowed: list[str]) -> str:
    if value not in allowed:
        problem = f"{_shown(value)} is not available to you" if allowed else "nothing is available to you"
        raise InvalidRequest(field, problem, ", ".join(allowed) or "none; ask the site")
    return value


def _default(wanted: str | None, allowed: list[str]) -> str:
    return wanted if wanted in allowed and wanted is not None else (allowed[0] if allowed else "")


def _allowed_hint(field: str, site: Site, user_groups: Collection[str]) -> str:
    if field == "profile":
        return ", ".join(p.name for p in site.profiles if open_to(p.groups, user_groups))
    if field == "environment":
        return ", ".join(e.name for e in site.environments if open_to(e.groups, user_groups))
    if field == "target":
        return ", ".join([AUTO, *(t.name for t in site.targets if open_to(t.groups, user_groups))])
    if field == "runtime":
        return 'text such as "02:00:00"'
    if field == "lease":
        return 'text such as "00:02:00"'
    if field == "notebook":
        return "the path of a notebook below your home directory, as text"
    listed = sorted({v for t in site.targets if isinstance(t, SlurmTarget) for v in getattr(t, f"{field}s") or ()})
    return ", ".join(listed) or "a name, as text"


def _shown(value: Any) -> str:
    """A user's value for a message: quoted, on one line, short."""
    text = ascii(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
