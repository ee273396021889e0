"""A site file is right or the hub does not start; the message says where it is wrong."""

from pathlib import Path

import pytest

from hybridspawner.site import SiteError, load_site, parse_site
from tests.hybridspawner.sites import document, site

SITES = Path(__file__).parents[2] / "sites"


@pytest.mark.parametrize("path", sorted(SITES.glob("*.yaml")), ids=lambda p: p.name)
def test_the_shipped_sites_are_right(path: Path) -> None:
    assert load_site(path).profiles


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profiles": [{"name": "a", "title": "A", "targets": ["moon"]}]}, "moon is not defined"),
        ({"profiles": [{"name": "a", "title": "A"}, {"name": "a", "title": "B"}]}, "named twice: a"),
        ({"profiles": [{"name": "Not A Name", "title": "A"}]}, "profiles.0.name"),
        ({"profiles": [{"name": "a", "title": "A", "colour": "red"}]}, "profiles.0.colour"),
        ({"profiles": [{"name": "a", "title": "A", "runtime": {"default": "9:00"}}]}, "HH:MM:SS"),
        ({"profiles": [{"name": "a", "title": "A", "runtime": {"default": "20:00:00"}}]}, "longer than max"),
        ({"targets": []}, "targets"),
        ({"targets": [{"name": "auto", "kind": "local", "title": "x"}]}, "auto"),
        ({"targets": [{"name": "x", "kind": "cloud", "title": "x"}]}, "cloud"),
        ({"defaults": {"profile": "nope"}}, "nope"),
    ],
)
def test_a_fault_is_named_with_its_place(change: dict, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        parse_site({**document(), **change})


def test_a_missing_file_and_broken_yaml_have_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="OBERALP_SITE"):
        load_site(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(SiteError, match="not YAML"):
        load_site(tmp_path / "broken.yaml")


def test_the_order_of_targets_is_kept() -> None:
    assert [t.name for t in site().targets] == ["pods", "alps", "here"]
