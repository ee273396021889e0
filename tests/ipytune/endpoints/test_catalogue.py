"""Endpoints of the site, of the user and of this session's servers are found by name; dead records are not believed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipytune.endpoints import BadRequest, Endpoint
from ipytune.endpoints import registration as module
from ipytune.endpoints.catalogue import Catalogue, register
from ipytune.endpoints.registration import folder
from tests.ipytune.endpoints.places import Places, places

__all__ = ["places"]  # the fixture

TUNED = Endpoint(name="tuned", base_url="http://127.0.0.1:8001/v1", model="first")
SITE = {"name": "site", "base_url": "https://inference.example/v1", "model": "big", "key_env": "SITE_KEY"}
USER = """
endpoints:
  - name: mine
    base_url: http://h:1/v1
    model: small
"""


def sources() -> dict[str, str]:
    return {entry.endpoint.name: entry.source for entry in Catalogue.load().entries}


def test_nothing_anywhere_is_an_empty_catalogue(places: Places) -> None:
    catalogue = Catalogue.load()
    assert catalogue.names == () and catalogue.problems == ()
    with pytest.raises(BadRequest, match="ipytune endpoints add"):
        catalogue.get("site")


def test_all_three_sources_are_found_and_a_name_counts_once(places: Places) -> None:
    places.site(SITE, {**SITE, "name": "tuned"}, {**SITE, "name": "mine"})
    places.user(USER)
    with register(TUNED):
        assert sources() == {"tuned": "session", "mine": "user", "site": "site"}
        assert Catalogue.load().get("tuned") == TUNED
    assert sources() == {"mine": "user", "site": "site", "tuned": "site"}
    assert Catalogue.load().get("site").key_env == "SITE_KEY"


def test_an_unknown_name_gets_the_nearest_ones(places: Places) -> None:
    places.site(SITE)
    with pytest.raises(BadRequest, match="Did you mean site"):
        Catalogue.load().get("Sit")
    with pytest.raises(BadRequest, match="There is: site"):
        Catalogue.load().get("something else")


@pytest.mark.parametrize("text", ["{", "{}", '[{"name": "a"}]', '["a"]', '[{"name": "a", "key": "SECRET"}]', "[1"])
def test_a_broken_variable_hides_nothing_else_and_is_told(places: Places, text: str) -> None:
    places.monkeypatch.setenv("IPYTUNE_ENDPOINTS", text)
    places.user(USER)
    catalogue = Catalogue.load()
    assert catalogue.names == ("mine",)
    assert len(catalogue.problems) == 1 and "IPYTUNE_ENDPOINTS" in catalogue.problems[0]
    assert "SECRET" not in catalogue.problems[0]


def test_records_are_for_their_owner_alone_and_hold_no_key(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNED_KEY", "MARKER-KEY")
    with register(TUNED.model_copy(update={"key_env": "TUNED_KEY"})) as registration:
        assert folder().stat().st_mode & 0o777 == 0o700
        assert registration.path.stat().st_mode & 0o777 == 0o600
        text = registration.path.read_text()
        assert "TUNED_KEY" in text and "MARKER-KEY" not in text
    assert list(folder().iterdir()) == []
    registration.close()  # twice is harmless


def test_the_newest_of_one_name_counts(places: Places) -> None:
    newer = TUNED.model_copy(update={"model": "second"})
    with register(TUNED) as old, register(newer):
        os.utime(old.path, (time.time() - 60, time.time() - 60))
        assert Catalogue.load().get("tuned") == newer
    assert sources() == {}


def test_the_record_of_a_killed_process_is_ignored_and_removed(places: Places) -> None:
    script = (
        "import sys\nfrom ipytune.endpoints import Endpoint\nfrom ipytune.endpoints.catalogue import register\n"
        "kept = register(Endpoint(name='tuned', base_url='http://127.0.0.1:1', model='m'))\n"
        "print('registered', flush=True)\nsys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "registered\n"
        assert sources() == {"tuned": "session"}
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
    assert len(list(folder().glob("*.json"))) == 1
    assert sources() == {} and list(folder().glob("*.json")) == []


def test_a_process_that_ends_by_itself_takes_its_record_along(places: Places) -> None:
    script = (
        "from ipytune.endpoints import Endpoint\nfrom ipytune.endpoints.catalogue import register\n"
        "kept = register(Endpoint(name='tuned', base_url='http://127.0.0.1:1', model='m'))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert list(folder().glob("*.json")) == []


def test_a_number_that_another_process_has_now_is_not_mistaken_for_it(places: Places) -> None:
    with register(TUNED) as registration:
        record = json.loads(registration.path.read_text())
        record["process"]["started"] = "1"
        registration.path.write_text(json.dumps(record))
        assert sources() == {}
        assert not registration.path.exists()


def test_another_machines_record_is_left_alone_until_it_is_old(places: Places) -> None:
    with register(TUNED) as registration:
        record = json.loads(registration.path.read_text())
        record["process"]["host"] = f"not-{socket.gethostname()}"
        registration.path.write_text(json.dumps(record))
        assert sources() == {} and registration.path.exists()
        os.utime(registration.path, (0, 0))
        assert sources() == {} and not registration.path.exists()


def test_a_folder_in_which_others_can_write_is_not_believed(places: Places) -> None:
    with register(TUNED):
        folder().chmod(0o777)
        catalogue = Catalogue.load()
        assert catalogue.entries == () and "chmod 700" in catalogue.problems[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"endpoint": {}}', "x" * 70_000])
def test_what_is_no_record_is_told_and_kept(places: Places, text: str) -> None:
    folder().mkdir(parents=True, mode=0o700)
    (folder() / "odd.json").write_text(text)
    catalogue = Catalogue.load()
    assert catalogue.entries == () and "odd.json" in catalogue.problems[0] and (folder() / "odd.json").exists()


def test_a_runtime_folder_that_a_job_inherited_but_its_node_lacks_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JUPYTER_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    assert folder() == tmp_path / ".local/share/jupyter/runtime/ipytune-endpoints"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert folder() == tmp_path / "ipytune-endpoints"


def test_a_folder_that_cannot_be_made_is_told(places: Places) -> None:
    places.runtime.write_text("a file")
    with pytest.raises(BadRequest, match="JUPYTER_RUNTIME_DIR"):
        register(TUNED)


def test_a_forked_child_does_not_remove_its_parents_record(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with register(TUNED) as registration:
        monkeypatch.setattr(module.os, "getpid", lambda: 1)
        registration.close()
        assert registration.path.exists()
        monkeypatch.undo()
        registration.close()
        assert not registration.path.exists()
