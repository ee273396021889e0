"""The spawn and progress pages as a person uses them, in chromium: choose, start, arrive, cancel, go wrong."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.hub_pages import chromium, log_in
from tests.clusters.requirement import unavailable
from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.process import Hub
from tests.hub.test_sessions import jobs

pytestmark = pytest.mark.browser


@pytest.fixture
def page() -> Iterator[Page]:
    if shutil.which("chromium") is None:
        unavailable("browser", "chromium is not installed", "apt-get install chromium")
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1200, "height": 900})


def test_a_person_starts_a_local_session_and_lands_in_the_notebook(hub: Hub, page: Page) -> None:
    log_in(page, hub, "page-one")
    expect(page.locator('input[name="target"][value="auto"]')).to_be_checked()
    page.click("text=Login node")
    page.click("text=More options")
    page.fill('input[name="notebook"]', "notebooks/01-first-session.ipynb")
    page.click("button[type=submit]")
    page.wait_for_url("**/user/page-one/lab/tree/notebooks/01-first-session.ipynb**", timeout=90_000)
    expect(page.get_by_role("heading", name="Your first session")).to_be_visible(timeout=60_000)
    hub.login("page-one").stop()


@pytest.mark.slurm
def test_a_person_starts_on_slurm_and_sees_each_step(hub: Hub, page: Page, slurm_cluster: SlurmCluster) -> None:
    log_in(page, hub, "page-two")
    page.click("text=One GPU")
    page.click("css=.hybrid-target[data-target=slurm]")
    expect(page.locator("[data-target=slurm] .hybrid-offer")).to_contain_text("GH200 GPUs free now")
    page.click("button[type=submit]")
    expect(page.locator("#hybrid-steps")).to_contain_text("Slurm accepted the job as number")
    page.wait_for_url("**/user/page-two/**", timeout=90_000)
    hub.login("page-two").stop()
    assert jobs(slurm_cluster) == []


@pytest.mark.slurm
def test_cancel_on_the_progress_page_takes_the_job_back(hub: Hub, page: Page, slurm_cluster: SlurmCluster) -> None:
    argv = ["sbatch", "--parsable", "--nodes=4", "--gres=gpu:gh200:4", "--output=/dev/null", "--wrap=sleep 600"]
    filling = slurm_cluster.run(*argv).stdout.strip()
    try:
        log_in(page, hub, "page-three")
        page.click("text=A whole node")
        page.click("button[type=submit]")
        expect(page.locator("#hybrid-steps")).to_contain_text("In the queue", timeout=30_000)
        page.click("#hybrid-cancel")
        expect(page.locator("#hybrid-failure")).to_contain_text("cancelled", timeout=30_000)
        assert wait_for(lambda: jobs(slurm_cluster) == [f"{filling} RUNNING"], 20, 0.2)
        expect(page.locator("#hybrid-again")).to_be_visible()
    finally:
        slurm_cluster.run("scancel", filling)


def test_a_bad_choice_is_named_while_it_is_typed_and_when_it_is_sent(hub: Hub, page: Page) -> None:
    log_in(page, hub, "page-four")
    page.click("text=More options")
    page.fill('input[name="notebook"]', "../secret")
    expect(page.locator("#hybrid-problem")).to_be_hidden()
    page.click("button[type=submit]")
    expect(page.locator(".spawn-error-msg")).to_contain_text("notebook: '../secret' leaves the home directory")
    expect(page.locator("#hybrid")).to_be_visible()
