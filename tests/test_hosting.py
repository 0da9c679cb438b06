"""What a public host reads: workflows, forms and hooks; and what a release is checked for."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_packaging import PYTHONS

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import check_dist
import check_release

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()


def read(path: Path):
    return YAML(typ="safe", pure=True).load(path)


def steps(workflow: Path) -> list[dict]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


# -- workflows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_names_its_actions_by_version(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]

    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+(\.\d+\.\d+)?", action) for action in used)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_may_read_unless_a_job_says_otherwise_and_ends_by_itself(workflow):
    document = read(workflow)

    assert document["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in document["jobs"].values())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_runs_what_is_there(workflow):
    for command in (step["run"] for step in steps(workflow) if "run" in step):
        for targets in re.findall(r"\bmake ([a-z -]+)", command):
            for target in targets.split():
                assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), command
        for script in re.findall(r"\S*(?:scripts|\.ci)/[\w.]+", command):
            assert (ROOT / script.split("(")[-1]).exists(), script
        for target in re.findall(r"--target (\w+)", command):
            assert f" AS {target}\n" in (ROOT / "Dockerfile").read_text()


def test_tests_run_on_every_python_that_is_promised():
    matrix = read(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]

    assert tuple(matrix["python"]) == PYTHONS


def test_only_the_job_that_publishes_may_prove_who_it_is_to_the_index():
    jobs = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]

    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "release"
    assert jobs["publish"]["needs"] == "build"


def test_an_image_that_is_pushed_is_signed_by_its_digest_and_verified():
    images = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["images"]
    done = [step.get("run", step.get("uses")) for step in images["steps"]]
    (pushed,) = (i for i, step in enumerate(done) if "docker push" in step)
    (signed,) = (i for i, step in enumerate(done) if "cosign sign" in step)

    assert images["permissions"]["id-token"] == "write"
    assert any(step.startswith("sigstore/cosign-installer@") for step in done[:signed])
    assert pushed < signed
    # A tag may be moved between the two; what was pushed has one digest.
    assert re.search(r"DIGEST=.*RepoDigests", done[signed])
    assert 'cosign sign --yes "$DIGEST"' in done[signed]
    assert 'cosign verify "$DIGEST"' in done[signed]
    assert "cosign verify" in (ROOT / "docs" / "releasing.md").read_text()


# -- forms and hooks ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", [f for f in FORMS if f.stem != "config"], ids=lambda p: p.stem)
def test_an_issue_form_asks_something_that_must_be_answered(form):
    document = read(form)
    fields = [field for field in document["body"] if field["type"] != "markdown"]

    assert document["name"]
    assert document["description"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_hooks_are_the_tools_that_make_runs():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]

    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert re.search(rf"^\t\$\(BIN\)/{tool}\b", MAKEFILE, re.MULTILINE)


# -- a release ---------------------------------------------------------------------------------

RELEASED = "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-11-28\n\nWhat is new.\n"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "lodestar_extproc").mkdir()
    (tmp_path / check_release.VERSION_FILE).write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(RELEASED)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    return tmp_path


def git(folder, *arguments):
    named = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(("git", *named, *arguments), cwd=folder, check=True)


def test_a_clean_checkout_whose_changelog_has_the_version_can_be_released(checkout):
    assert check_release.problems(checkout) == []


def test_what_is_not_committed_is_not_released(checkout):
    (checkout / "notes").write_text("more")

    (problem,) = check_release.problems(checkout)
    assert "not committed" in problem


def test_a_version_is_released_once(checkout):
    git(checkout, "tag", "v1.2.0")

    (problem,) = check_release.problems(checkout)
    assert "tag v1.2.0 already" in problem


@pytest.mark.parametrize(
    ("changelog", "problem"),
    [
        (RELEASED.replace("Unreleased\n", "Unreleased\n\nA new thing.\n"), "still has lines"),
        (RELEASED.replace("1.2.0", "1.1.0"), 'no "## 1.2.0'),
        (RELEASED.replace(" - 2026-11-28", ""), 'no "## 1.2.0'),
        (RELEASED.replace("## Unreleased\n", ""), "does not begin"),
    ],
)
def test_version_and_changelog_agree(changelog, problem):
    (found,) = check_release.problems_of_changelog(changelog, "1.2.0")

    assert problem in found


def test_this_checkout_has_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", check_release.version(ROOT))


METADATA = """\
Metadata-Version: 2.4
Name: lodestar-extproc
Version: 1.2.0
Requires-Dist: protobuf<8,>=6.31.1
Description-Content-Type: text/markdown

# Lodestar
"""
GENERATED = "# Protobuf Python Version: 6.31.1\n"


def wheel(folder: Path, metadata: str = METADATA, generated: str = GENERATED, more=()) -> Path:
    path = folder / "lodestar_extproc-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*check_dist.IN_WHEEL, *more):
            archive.writestr(name, generated if name.endswith("_pb2.py") else "")
        archive.writestr("lodestar_extproc-1.2.0.dist-info/METADATA", metadata)
    return path


def test_a_good_wheel_is_let_through(tmp_path):
    assert check_dist.problems_of_wheel(wheel(tmp_path)) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"metadata": METADATA.replace("6.31.1", "6.30")}, "needs protobuf>=6.31.1"),
        ({"metadata": METADATA.replace("1.2.0", "one")}, "version"),
        ({"metadata": METADATA.replace("text/markdown", "text/plain")}, "is not the README"),
        ({"more": ["tests/test_router.py"]}, "holds tests/test_router.py"),
    ],
)
def test_a_wheel_that_is_wrong_is_held_back(tmp_path, changed, problem):
    (found,) = check_dist.problems_of_wheel(wheel(tmp_path, **changed))

    assert problem in found


def test_a_wheel_without_its_generated_code_is_held_back(tmp_path, monkeypatch):
    complete = check_dist.IN_WHEEL
    monkeypatch.setattr(check_dist, "IN_WHEEL", complete[:2])
    built = wheel(tmp_path)
    monkeypatch.setattr(check_dist, "IN_WHEEL", complete)

    assert [p.rpartition(" ")[2] for p in check_dist.problems_of_wheel(built)] == [*complete[2:]]
