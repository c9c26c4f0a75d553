"""A server over releases: updates without a restart, experiments, and feedback that comes home."""

import signal
import subprocess
import time

from deploy.feedback import Event, Shown, read
from deploy.releases import Releases
from deploy.releases.split import Experiment
from tests.deploy.serving import ROOT, command, serving

WITHIN_S = 30.0


def answered(server, user=None):
    response = server.client.post("/v1/recommend", json={"history": ["i3"], "k": 3, "user": user})
    assert response.status_code == 200
    return response.json()


def wait_for(server, digest, user=None):
    """The first answer of the release with this digest."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        found = answered(server, user)
        if found["release"].endswith(digest[:12]):
            return found
    raise AssertionError(f"{digest[:12]} does not answer")


def test_an_update_a_rollback_and_an_experiment_need_no_restart(device):
    releases, (first, second, _) = device
    with serving(releases.root, "--allow-unsigned") as server:
        assert first[:12] in server.banner and answered(server)["release"].endswith(first[:12])
        releases.activate(second)
        wait_for(server, second)
        assert server.client.get("/readyz").json()["release"].endswith(second[:12])
        releases.rollback()
        wait_for(server, first)
        releases.experiment(Experiment(name="all", arms={second: 10_000}))
        wait_for(server, second, user="ana")
        assert answered(server)["release"].endswith(first[:12])  # who has no name has the active one


def test_what_is_shown_done_and_asked_of_a_shadow_is_in_the_log_when_the_server_has_stopped(device, tmp_path):
    releases, (first, second, _) = device
    releases.experiment(Experiment(name="november", shadows={second: 10_000}))
    log = tmp_path / "feedback"
    with serving(releases.root, "--allow-unsigned", "--feedback", log) as server:
        shown = answered(server, "ana")
        event = {"request_id": shown["request_id"], "item_id": shown["items"][0]["id"], "event": "click"}
        assert server.client.post("/v1/feedback", json=event).status_code == 200
        assert [type(record) for record in read(log)].count(Event) == 1  # acknowledged: on the disk
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(WITHIN_S) == 0
    records = list(read(log))
    answers = {record.role: record for record in records if isinstance(record, Shown)}
    assert answers["answer"].release.endswith(first[:12]) and answers["shadow"].release.endswith(second[:12])
    for record in answers.values():
        assert (record.request_id, record.user, record.experiment) == (shown["request_id"], "ana", "november")
    assert [item.id for item in answers["answer"].items] == [item["id"] for item in shown["items"]]


def test_a_folder_without_an_active_release_is_one_line(tmp_path):
    releases = Releases(tmp_path / "device", health=lambda _: None)
    (releases.root / "releases").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command("serve", releases.root, "--allow-unsigned", "--port", 0), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no active release" in done.stderr
