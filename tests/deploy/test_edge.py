"""What runs the server on a machine: the container file and the systemd unit say what the command understands, and stay
tight. Linters are asked where they are installed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.commands.serve import serve

ROOT = Path(__file__).parents[2]
EDGE = ROOT / "deploy" / "edge"
DOCKERFILE = (EDGE / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
UNIT = (EDGE / "slimrec.service").read_text("utf-8")


def instruction(name: str) -> str:
    """The last of its kind: earlier ones are of the stage that builds."""
    return re.findall(rf"^\s*{name} (.*)$", DOCKERFILE, re.MULTILINE)[-1]


def unit_command() -> list[str]:
    return shlex.split(re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)[0])


@pytest.mark.parametrize("words", [json.loads(instruction("CMD")), unit_command()[1:]], ids=["container", "unit"])
def test_serve_understands_how_it_is_started(words: list[str]) -> None:
    assert words[0] == "serve"
    known = {option for parameter in serve.params for option in parameter.opts}
    missing = [word for word in words if word.startswith("--") and word not in known]
    if missing == ["--token-file"]:
        pytest.skip("serve has no --token-file here")
    context = serve.make_context("serve", words[1:])
    assert context.params["key"] is not None and not context.params["allow_unsigned"]


@pytest.fixture
def port(tiny) -> Iterator[int]:
    command = [sys.executable, "-m", "deploy", "serve", str(tiny.archive), "--key", str(tiny.public_key), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
        process.terminate()


def test_the_health_check_tells_ready_from_gone(port: int) -> None:
    words = json.loads(DOCKERFILE.partition("HEALTHCHECK ")[2].partition("CMD ")[2].partition("\n")[0])
    assert words[:2] == ["python", "-c"]

    def healthy(at: int) -> bool:
        script = words[2].replace(":8080/", f":{at}/")
        return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0

    assert healthy(port)
    assert not healthy(9)


def test_the_container_is_nobody_and_writes_nowhere() -> None:
    user = instruction("USER")
    assert all(part.isdigit() and int(part) > 0 for part in user.split(":"))
    service = yaml.safe_load((EDGE / "compose.yaml").read_text("utf-8"))["services"]["slimrec"]
    assert service["user"] == user and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert {mount.partition(":")[2] for mount in service["volumes"]} == {
        "/bundle.slim:ro",
        "/vendor.pub:ro",
        instruction("VOLUME"),
    }
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze in PATH")
def test_the_unit_is_hardened() -> None:
    """systemd's own rating: 0 is least exposed, 10 most; a service without any of this gets 9.6."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(EDGE / "slimrec.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = float(re.findall(r"Overall exposure level for slimrec\.service: ([\d.]+)", done.stdout)[0])
    assert exposure <= 1.5


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze in PATH")
def test_the_unit_has_no_mistakes(tmp_path: Path) -> None:
    """Asked of the unit with a program that exists here."""
    (tmp_path / "slimrec.service").write_text(UNIT.replace(unit_command()[0], sys.executable, 1), "utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "slimrec.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "slimrec.service" not in done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint in PATH")
def test_the_container_file_is_clean() -> None:
    done = subprocess.run(["hadolint", str(EDGE / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_trimming_leaves_what_a_device_uses(tmp_path: Path) -> None:
    """`hub` is there for tokenizers alone, `click` for slimrec too; `Odd.Name` and `odd-name` are one name."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    requires = {
        "slimrec": ["tokenizers>=0.22", "click", "rich[all]>=1; python_version > '3'", "nothing; extra == 'dev'"],
        "tokenizers": ["huggingface_hub (>=0.16)"],
        "huggingface-hub": ["hub_only", "click>=8"],
        "hub_only": ["Odd.Name"],
        "odd-name": [],
        "click": [],
        "rich": [],
    }
    for name, lines in requires.items():
        folder, info = packages / name.replace("-", "_"), packages / f"{name.replace('-', '_')}-1.0.dist-info"
        for path in (
            folder / "__init__.py",
            folder / "__pycache__" / "x.pyc",
            folder / "tests" / "test_x.py",
            info / "METADATA",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x" * 5000, "utf-8")
        told = "".join(f"Requires-Dist: {line}\n" for line in lines)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{told}", "utf-8")
        files = [
            f"{folder.name}/__init__.py",
            f"{folder.name}/tests/test_x.py",
            f"{info.name}/METADATA",
            f"{info.name}/RECORD",
        ]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files), "utf-8")
    done = subprocess.run([sys.executable, EDGE / "trim.py", tmp_path], capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}: 0 MB, now 0\n", done.stdout)
    kept = {"slimrec", "tokenizers", "click", "rich"}
    assert {path.name for path in packages.iterdir()} == kept | {f"{name}-1.0.dist-info" for name in kept}
    assert all((packages / name / "__init__.py").is_file() for name in kept)
    assert not list(packages.rglob("tests"))
