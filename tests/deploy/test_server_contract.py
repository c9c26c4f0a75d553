"""schemathesis reads /openapi.json and looks for answers it does not allow. Skips where it is not installed."""

import os
import shutil

import pytest

from benchmarks.soak.contract import check_contract
from tests.deploy.serving import serving

SCHEMATHESIS = os.environ.get("SLIMREC_SCHEMATHESIS") or shutil.which("schemathesis")


@pytest.mark.skipif(SCHEMATHESIS is None, reason="schemathesis is not installed (make soak has it)")
def test_answers_are_those_of_the_contract(tiny, tmp_path):
    assert SCHEMATHESIS is not None
    arguments = ("--allow-unsigned", "--state", tmp_path / "state", "--feedback", tmp_path / "feedback")
    with serving(tiny.folder, *arguments) as server:
        found = check_contract(SCHEMATHESIS, server.port, tmp_path, examples=40)
    assert found.passed and found.cases > 100, "\n".join(found.said)
