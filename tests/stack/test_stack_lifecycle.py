"""The story of `make demo-lifecycle`, played to its end on a stack of its own; and how it breaks off."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lifecycle import chapters, material
from lifecycle.stage import Story, ending
from rich.console import Console
from stack.failures import LifecycleError

from easeml_core.store.server.server import Server, throwaway_folder

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = 5


def test_a_chapter_that_breaks_off_is_named():
    story = Story(Console(quiet=True))
    with story.chapter("The beginning") as chapter:
        chapter.tell("It began.")
    reason = "nothing came"
    with pytest.raises(LifecycleError, match="chapter 2, The end: nothing came"), story.chapter("The end"):
        raise LifecycleError(reason)


def test_each_time_the_digits_are_others_but_as_many_and_with_the_same_labels():
    played = [material.load_table(time) for time in range(1, material.WAYS + 1)]
    rows = np.concatenate([digits.pixels for digits in played])
    assert len(np.unique(rows, axis=0)) >= 0.999 * len(rows)
    assert all((digits.digits == played[0].digits).all() for digits in played)
    assert played[0].held_back == 397
    with pytest.raises(LifecycleError, match="8 times"):
        material.load_table(material.WAYS + 1)


def test_models_are_handed_in_from_the_worst_to_the_best():
    models = [chapters.Offered(k, f"model {k}", k / 10) for k in range(7)]
    assert [m.model_id for m in chapters.rising(models, 3)] == [0, 3, 6]
    with pytest.raises(LifecycleError, match="8 models are to be handed in, but 7"):
        chapters.rising(models, 8)


def test_names_tell_how_often_it_was_played():
    assert [ending(time) for time in (1, 2, 10)] == ["", "-2", "-10"]


def write_published(folder, rng):
    """A file of recorded answers of the form of the real one: 90 pictures of one set, 30 of the other."""
    rows = ["model,split,n,labels_or_predictions"]
    for model in ("TRUE_LABELS", "another", *material.HANDED_IN):
        for split, n in (("original", 90), ("v4", 30), ("v6", 20)):
            rows.append(f"{model},{split},{n},{''.join(map(str, rng.integers(0, 10, n)))}")
    (folder / material.PREDICTIONS).parent.mkdir(parents=True)
    (folder / material.PREDICTIONS).write_text("\n".join(rows) + "\n")


def test_what_is_handed_in_for_a_published_model_answers_as_it_did(tmp_path):
    assert material.load_published(1, tmp_path) is None  # where the file is not at hand, the story goes on without it
    write_published(tmp_path, np.random.default_rng(5))
    model = material.HANDED_IN[1]
    first, second = (material.load_published(time, tmp_path) for time in (1, 2))
    assert (first.sizes, len(first.labels), first.said) == ((90, 30), 120, second.said)
    table = second.write_table(tmp_path / "photos.csv").read_text().splitlines()
    assert table[:2] == ["picture,object", f"{material.APART},{second.labels[0]}"]
    inputs, labels = second.write_examples(tmp_path)
    assert len(inputs.read_text().splitlines()) == len(labels.read_text().splitlines()) == 31
    folder = second.write_program(tmp_path / model, model)
    asked = [3, 118, 90]
    np.save(folder / "inputs.npy", np.array([[material.APART + k] for k in asked], dtype=np.float32))
    said = subprocess.run((sys.executable, "predict.py"), cwd=folder, capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in said.split()] == [first.said[model][k] for k in asked]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_whole_story_is_played(tmp_path):
    if shutil.which("chromium") is None:
        told = "there is no chromium on this machine; `make browser` installs it"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    with throwaway_folder() as folder:
        home = folder / "home-of-lifecycle"
        words = ("--home", str(home), "--pictures", str(tmp_path))
        played = subprocess.run(
            (sys.executable, str(ROOT / "scripts" / "demo_lifecycle.py"), *words), capture_output=True, text=True
        )
        Server(home / "postgres").stop()
    print(played.stdout)
    assert played.returncode == 0, played.stdout + played.stderr
    assert [f"{k}. " in played.stdout for k in range(1, CHAPTERS + 1)] == [True] * CHAPTERS
    assert {path.name[0] for path in tmp_path.glob("*.png")} == set("12345")
    assert not list(tmp_path.glob("failed*"))
    told = " ".join(played.stdout.split())
    assert "signal 2 of 3" in told
    if material.load_published() is not None:
        worst, best = material.HANDED_IN[0], material.HANDED_IN[-1]
        assert re.search(rf"{worst} with 0\.8\d+ on the validation data: fail, signal [23] of 3", told)
        assert re.search(rf"{best} with 0\.9\d+ on the validation data: pass, signal [12] of 3", told)
