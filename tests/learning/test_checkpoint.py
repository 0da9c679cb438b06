import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from builders import live_settings
from damaged_states import damaged
from in_the_way import IN_THE_WAY, everything, may_mount, put_in_the_way
from learning_worlds import LinearWorld
from lodestar_extproc.learning import checkpoint
from lodestar_extproc.learning.auto_predictor import AutoPredictor
from lodestar_extproc.learning.checkpoint import (
    CheckpointError,
    ForeignFile,
    read_checkpoint,
    warm_start,
    write_checkpoint,
)
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.set_aside import MAX_ASIDE
from lodestar_extproc.learning.trust import Trust

INPUTS = Path(__file__).parent / "inputs"
STATE = {"a": [1.5, 0.1 + 0.2], "b": {"c": None}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pool.checkpoint"


def a_learner():
    return Learner(EnginePredictor(), Trust(live_settings()))


def test_what_is_written_is_read_to_the_last_bit(path):
    write_checkpoint(path, "engine", STATE)

    assert read_checkpoint(path, "engine") == STATE


def test_folders_are_made_and_nothing_else_is_left_in_them(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for _ in range(3):
        write_checkpoint(path, "engine", STATE)

    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file_whole(path):
    write_checkpoint(path, "engine", STATE)
    with pytest.raises(TypeError):
        write_checkpoint(path, "engine", {"a": object()})
    (path.parent / "full").mkdir()
    with pytest.raises(OSError, match="full"):
        write_checkpoint(path.parent / "full", "engine", STATE)

    assert read_checkpoint(path, "engine") == STATE
    assert sorted(p.name for p in path.parent.iterdir()) == ["full", path.name]


def test_a_restarted_learner_is_warm(path):
    world, learner, again = LinearWorld(), a_learner(), a_learner()
    world.teach(learner, 100)
    write_checkpoint(path, "engine", learner.state())

    assert warm_start(path, "engine", again)
    assert again.state() == learner.state()
    assert path.exists()


def test_no_file_is_a_cold_start_without_a_warning(path, caplog):
    assert not warm_start(path, "engine", a_learner())
    assert not caplog.records


def other_features(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FEATURES", ("constant", "something_else"))


def other_version(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 99)


def one_digit(path, _):
    path.write_bytes(path.read_bytes()[:-3] + b"7]}")


def empty(path, _):
    path.write_bytes(b"")


def half(path, _):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path, _):
    path.write_bytes(bytes(path.stat().st_size))


def half_a_header(path, _):
    path.write_bytes(path.read_bytes()[:30])


@pytest.mark.parametrize(
    "damage", [other_features, other_version, one_digit, empty, half, zeroed, half_a_header]
)
def test_a_file_that_does_not_fit_is_set_aside_with_a_warning(path, damage, monkeypatch, caplog):
    write_checkpoint(path, "engine", a_learner().state())
    damage(path, monkeypatch)
    held = path.read_bytes()
    with pytest.raises(CheckpointError), caplog.at_level(logging.WARNING):
        read_checkpoint(path, "engine")
    learner = a_learner()

    assert not warm_start(path, "engine", learner)
    assert learner.state() == a_learner().state()
    assert not path.exists()
    assert path.with_name("pool.checkpoint.bad").read_bytes() == held
    assert "starting cold" in caplog.text


def test_another_predictors_file_is_not_used_and_kept_until_that_one_is_back(path, caplog):
    world, learner, again = LinearWorld(), a_learner(), a_learner()
    world.teach(learner, 100)
    write_checkpoint(path, "engine", learner.state())

    assert not warm_start(path, "mlp", a_learner())
    assert "its predictor is 'engine', not 'mlp'" in caplog.text
    write_checkpoint(path, "mlp", {"bundle": None})
    assert warm_start(path, "engine", again)
    assert again.state() == learner.state()
    assert read_checkpoint(path.with_name("pool.checkpoint.mlp"), "mlp") == {"bundle": None}


def test_a_state_that_is_written_late_does_not_keep_another_predictors_from_being_written(path):
    write_checkpoint(path, "mlp", {"late": True})
    write_checkpoint(path, "engine", STATE)
    write_checkpoint(path, "mlp", {"later": True})

    assert read_checkpoint(path, "mlp") == {"later": True}
    assert read_checkpoint(path.with_name("pool.checkpoint.engine"), "engine") == STATE
    write_checkpoint(path, "engine", {})
    kept = {"pool.checkpoint", "pool.checkpoint.engine", "pool.checkpoint.mlp"}
    assert {p.name for p in path.parent.iterdir()} == kept


def test_files_set_aside_are_never_overwritten_and_not_without_bound(path):
    for n in range(MAX_ASIDE):
        path.write_bytes(b'{"version":1}' + bytes([n]))
        assert not warm_start(path, "engine", a_learner())
    kept = sorted(p.read_bytes()[-1] for p in path.parent.iterdir())
    assert kept == list(range(MAX_ASIDE))

    path.write_bytes(b'{"version":1} the last')
    with pytest.raises(OSError, match="set aside"):
        warm_start(path, "engine", a_learner())
    with pytest.raises(OSError, match="set aside"):
        write_checkpoint(path, "engine", STATE)
    assert path.read_bytes() == b'{"version":1} the last'


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_whatever_is_no_checkpoint_is_neither_moved_nor_overwritten_nor_waited_for(path, kind):
    put_in_the_way(path, kind)
    before = everything(path.parent)
    for attempt in (
        lambda: warm_start(path, "engine", a_learner()),
        lambda: write_checkpoint(path, "engine", STATE),
    ):
        with pytest.raises((OSError, ForeignFile), match=r"left as it is") as caught:
            attempt()
        assert str(path.resolve()) in str(caught.value)
        assert everything(path.parent) == before


def test_a_file_that_may_not_be_read_stays(path, monkeypatch):
    write_checkpoint(path, "engine", STATE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint, "open_regular", refuse)
    for attempt in (
        lambda: warm_start(path, "engine", a_learner()),
        lambda: write_checkpoint(path, "engine", {}),
    ):
        with pytest.raises(PermissionError):
            attempt()
    monkeypatch.undo()
    assert read_checkpoint(path, "engine") == STATE


def test_a_link_stays_one(tmp_path, path):
    (tmp_path / "volume").mkdir()
    path.symlink_to(tmp_path / "volume" / "real")
    write_checkpoint(path, "engine", STATE)

    assert path.is_symlink()
    assert read_checkpoint(tmp_path / "volume" / "real", "engine") == STATE


@pytest.mark.skipif(not may_mount(), reason="needs leave to mount")
def test_a_mount_point_is_told_what_to_mount_instead(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(checkpoint.__file__).parents[2])!r})
from pathlib import Path
from lodestar_extproc.learning.checkpoint import write_checkpoint
try:
    write_checkpoint(Path({str(tmp_path / "mounted")!r}), "engine", {{}})
except OSError as error:
    print(error)
"""
    for name in ("mounted", "outside"):
        (tmp_path / name).touch()
    mounting = f"mount --bind {tmp_path}/outside {tmp_path}/mounted && exec {sys.executable} -"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounting],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "is a mount point: mount the folder it is in instead" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mounted", "outside"]


def test_a_state_that_the_learner_refuses_is_a_cold_start(path, caplog):
    write_checkpoint(path, "engine", {"n_learned": 5})
    learner = a_learner()

    assert not warm_start(path, "engine", learner)
    assert learner.status().n_samples == 0
    assert orjson.loads(path.with_name("pool.checkpoint.bad").read_bytes().splitlines()[1])


@pytest.mark.parametrize(
    ("name", "new_predictor"),
    [("engine", EnginePredictor), ("auto", lambda: AutoPredictor([EnginePredictor]))],
)
def test_what_version_0_1_0_wrote_is_read_and_written_as_it_was(name, new_predictor, path):
    path.write_bytes((INPUTS / f"{name}_0_1_0.json").read_bytes())
    learner = Learner(new_predictor(), Trust(live_settings()))
    world = LinearWorld(("fast", "slow"), seed=7)

    assert warm_start(path, name, learner)
    # As that version predicted.
    assert learner.predict(world.candidates().features, world.endpoints).ttft_s == pytest.approx(
        [0.11570976476208733, 0.28589460007938466]
    )
    assert learner.status().n_samples == 60
    write_checkpoint(path, name, learner.state())
    assert path.read_bytes() == (INPUTS / f"{name}_0_1_0.json").read_bytes()


def test_whatever_is_wrong_with_a_state_it_is_restored_or_refused_in_one_way():
    world, learner = LinearWorld(("fast", "slow")), a_learner()
    world.teach(learner, 60)
    features = world.candidates().features
    for state in damaged(learner.state()):
        again = a_learner()
        before = again.state()
        try:
            again.restore(state)
        except ValueError:
            assert again.state() == before
        else:
            assert not np.isnan(again.predict(features, world.endpoints).ttft_s).any()
            assert again.status().n_samples >= 0
            assert orjson.dumps(again.state()), "what was taken over can be written again"


def test_a_prediction_of_no_time_is_a_cold_start(path, caplog):
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 60)
    state = learner.state()
    state["errors"]["fleet"][0] = [0.0, 0.0]
    write_checkpoint(path, "engine", state)
    again = a_learner()

    assert not warm_start(path, "engine", again)
    assert again.status().n_samples == 0
    assert "no times: predicted 0.0" in caplog.text
