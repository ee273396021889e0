"""The spawn and progress pages as a person uses them, in chromium: choose, start, arrive, cancel, go wrong."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.hub_pages import chromium, log_in
from tests.clusters.slurm import SlurmCluster
from tests.clusters.slurm.processes import wait_for
from tests.hub.process import Hub
from tests.hub.test_sessions import jobs

pytestmark = pytest.mark.browser


@pytest.fixture
def page(chromium_path: str) -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1200, "height": 900})


def test_a_person_starts_a_local_session_and_lands_in_the_notebook(hub: Hub, page: Page) -> None:
    log_in(page, hub, "page-one")
    expect(page.locator('input[name="target"][value="auto"]')).to_be_checked()
    page.click("css=.hybrid-target[data-target=local]")
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


@pytest.mark.slurm
def test_a_full_cluster_shows_an_estimate_and_the_page_follows_without_reload(
    hub: Hub, page: Page, slurm_cluster: SlurmCluster
) -> None:
    argv = ["sbatch", "--parsable", "--nodes=4", "--gres=gpu:gh200:4", "--time=25", "--output=/dev/null"]
    filling = slurm_cluster.run(*argv, "--wrap=sleep 600").stdout.strip()
    slurm = page.locator("[data-target=slurm]")
    try:
        log_in(page, hub, "page-five")
        page.click("text=A whole node")
        page.evaluate("window.stays = true")
        expect(slurm.locator(".hybrid-offer")).to_have_text("0 of 16 GH200 GPUs free now", timeout=30_000)
        expect(slurm.locator(".hybrid-more")).to_contain_text("estimated start in about 2", timeout=30_000)
        expect(slurm.locator(".hybrid-age")).to_contain_text(re.compile(r"read .*, estimated (just now|\d+ s ago)"))
        expect(page.locator("#hybrid-reason")).to_contain_text("(an estimate)")
    finally:
        slurm_cluster.run("scancel", filling)
    expect(slurm.locator(".hybrid-offer")).to_have_text("16 of 16 GH200 GPUs free now", timeout=40_000)
    expect(slurm.locator(".hybrid-more")).to_have_text("")
    assert page.evaluate("window.stays")


@pytest.mark.slurm
def test_nodes_out_of_service_are_said(hub: Hub, page: Page, slurm_cluster: SlurmCluster) -> None:
    node = "nodename=nid000004"
    slurm_cluster.run("scontrol", "update", node, "state=drain", "reason=test")
    try:
        log_in(page, hub, "page-six")
        page.click("text=One GPU")
        expect(page.locator("[data-target=slurm] .hybrid-more")).to_have_text("1 node is drained", timeout=30_000)
        expect(page.locator("[data-target=slurm] .hybrid-offer")).to_have_text("12 of 16 GH200 GPUs free now")
    finally:
        slurm_cluster.run("scontrol", "update", node, "state=resume")


@pytest.mark.slurm
def test_by_keyboard_alone_and_slurm_s_fields_only_where_slurm_is_meant(
    hub: Hub, page: Page, slurm_cluster: SlurmCluster
) -> None:
    log_in(page, hub, "page-seven")
    account = page.locator('input[name="account"]')
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(account).to_be_enabled()
    page.locator('input[name="target"][value="auto"]').focus()
    while page.locator('input[name="target"]:checked').get_attribute("value") != "local":
        page.keyboard.press("ArrowDown")
    expect(account).to_be_hidden()
    expect(account).to_be_disabled()
    page.keyboard.press("ArrowUp")
    expect(page.locator('input[name="target"][value="slurm"]')).to_be_checked()
    expect(account).to_be_visible()
    account.fill("no such account")
    expect(page.locator("#hybrid-problem")).to_contain_text("account: 'no such account' is not a name")
    account.fill("")
    expect(page.locator("#hybrid-problem")).to_be_hidden()


def test_a_narrow_screen_in_the_dark_cuts_nothing_off(hub: Hub, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    log_in(page, hub, "page-eight")
    page.click("text=More options")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    cut = """() => [...document.querySelectorAll('#hybrid *')].filter((e) => e.checkVisibility()
        && e.getBoundingClientRect().right > window.innerWidth + 1).map((e) => e.outerHTML)"""
    assert page.evaluate(cut) == []
