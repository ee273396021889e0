"""One schema for every way in: whatever arrives is either a request the site can carry out, or an error naming a field."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridspawner.request import SLURM_NAME, InvalidRequest, SpawnRequest, normalise_form, slurm_targets, validate
from tests.hybridspawner.carried_out import outcome
from tests.hybridspawner.sites import document, site

SITE = site()
OPEN = site(
    targets=[{k: v for k, v in t.items() if k not in ("partitions", "accounts")} for t in document()["targets"]]
)
"""Lists no partitions and accounts: users' own names get furthest here."""
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(list(SpawnRequest.model_fields))


def test_an_empty_request_takes_the_defaults() -> None:
    request = validate({}, SITE)
    assert request == SpawnRequest(profile="small", environment="torch", target="auto", runtime="02:00:00")


def test_the_site_says_what_the_defaults_are() -> None:
    assert validate({}, site(defaults={"profile": "gpu"})).profile == "gpu"


@given(anything | st.dictionaries(fields | st.text(), anything))
def test_anything_is_a_request_or_names_the_field(options: Any) -> None:
    try:
        request = validate(options, SITE)
    except InvalidRequest as error:
        assert str(error).startswith(error.field) and error.allowed
        assert "\n" not in str(error)
    else:
        assert validate(request.model_dump(), SITE) == request


names = st.from_regex(SLURM_NAME, fullmatch=True) | st.text(max_size=70)
paths = st.text(max_size=80) | st.lists(st.text(max_size=8), max_size=5).map("/".join)
nearly = st.fixed_dictionaries(
    {"profile": st.just("gpu")},
    optional={"account": names, "partition": names, "reservation": names, "notebook": paths, "runtime": st.text()},
)


@settings(deadline=None)
@given(nearly | st.dictionaries(fields | st.text(), anything) | anything)
def test_what_is_accepted_is_carried_out_in_its_own_places_only(options: Any) -> None:
    assert outcome(options, SITE) in ("accepted", "refused")
    assert outcome(options, OPEN) in ("accepted", "refused")


def test_the_check_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridspawner.request.SLURM_NAME", re.compile(r".*", re.DOTALL))
    for value in ("normal\n#SBATCH --nodes=4", "a b", "x;y"):
        with pytest.raises((AssertionError, ValueError)):
            outcome({"profile": "gpu", "partition": value}, OPEN)


def test_a_notebook_is_a_path_in_a_url_and_no_format() -> None:
    request = validate({"notebook": "my notebooks/{0.x} 50%?a#b.ipynb"}, SITE)
    assert request.start_page == "/lab/tree/my%20notebooks/%7B0.x%7D%2050%25%3Fa%23b.ipynb"
    assert request.start_page == request.start_page.format("JupyterHub formats it")
    assert validate({}, SITE).start_page is None


@given(st.text())
def test_no_slurm_value_can_leave_its_line_or_word(value: str) -> None:
    try:
        request = validate({"reservation": value, "target": "alps"}, SITE)
    except InvalidRequest as error:
        assert error.field == "reservation"
    else:
        assert SLURM_NAME.fullmatch(request.reservation or "") and not set(request.reservation or "") & set(
            " \t\n\r;|&$`'\"<>{}"
        )


@pytest.mark.parametrize(
    "runtime", ["2:00", "02:00", "1", "-01:00:00", "02:00:00\n", "٠٢:00:00", "24:60:00", "", " 02:00:00"]
)
def test_a_runtime_has_one_spelling(runtime: str) -> None:
    with pytest.raises(InvalidRequest, match="runtime"):
        validate({"runtime": runtime}, SITE)


def test_limits_are_the_profile_s() -> None:
    assert validate({"profile": "gpu", "runtime": "04:00:00"}, SITE).runtime == "04:00:00"
    with pytest.raises(InvalidRequest, match="at most 04:00:00"):
        validate({"profile": "gpu", "runtime": "04:00:01"}, SITE)


def test_groups_decide_what_exists() -> None:
    with pytest.raises(InvalidRequest, match="environment.*Allowed: torch"):
        validate({"environment": "secret"}, SITE)
    assert validate({"environment": "secret"}, SITE, {"staff"}).environment == "secret"


def test_a_profile_s_targets_are_the_only_ones() -> None:
    with pytest.raises(InvalidRequest, match="target.*Allowed: auto, pods, alps"):
        validate({"profile": "gpu", "target": "here"}, SITE)


def test_slurm_fields_need_a_slurm_target_and_a_listed_value() -> None:
    with pytest.raises(InvalidRequest, match="partition: Kubernetes is not a Slurm target"):
        validate({"target": "pods", "partition": "debug"}, SITE)
    with pytest.raises(InvalidRequest, match="partition: 'long' is not offered on Slurm. Allowed: normal, debug"):
        validate({"partition": "long"}, SITE)
    request = validate({"partition": "debug"}, SITE)
    assert request.target == "auto" and slurm_targets(request, SITE, ["pods", "alps", "here"]) == ["alps"]


@pytest.mark.parametrize(
    "notebook", ["/etc/passwd", "../x.ipynb", "a/../../b", "~root/x", "a\nb", "", "x" * 256, "\ud800.ipynb"]
)
def test_a_notebook_stays_in_the_home(notebook: str) -> None:
    with pytest.raises(InvalidRequest, match="notebook"):
        validate({"notebook": notebook}, SITE)


def test_form_fields_become_a_request() -> None:
    form = {"profile": ["gpu"], "account": [""], "_xsrf": ["x"], "target": ["a", "b"]}
    assert normalise_form(form) == {"profile": "gpu", "target": ["a", "b"]}
