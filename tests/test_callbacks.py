"""scikit-learn's callbacks on the estimators, and verbose output."""

from __future__ import annotations

import numpy as np
import pytest
from data import set_a
from sklearn.base import clone

from ekmfast import EKMeans

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 brought callbacks")


class Recorder:
    """Records the arguments of its calls, and stops a fit after ``last`` calls."""

    def __init__(self, last=None):
        self.last = last
        self.calls, self.objectives, self.centroids = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        if context.task_name == "pass":
            self.objectives.append(metadata["objective"])
            self.centroids.append(fitted_estimator.predict(set_a()[0][:5]))
            return self.last is not None and len(self.objectives) >= self.last
        return False


@pytest.mark.parametrize("alpha", ["auto", 1.0])
def test_every_pass_is_a_task(alpha):
    X = set_a()[0]
    recorder = Recorder()
    model = EKMeans(3, alpha=alpha, random_state=0).set_callbacks(recorder).fit(X)
    assert recorder.calls[:2] == ["setup", "begin fit"]
    assert recorder.calls[-2:] == ["end fit", "teardown"]
    assert len(recorder.objectives) >= model.n_iter_
    assert all(labels.shape == (5,) for labels in recorder.centroids)
    plain = EKMeans(3, alpha=alpha, random_state=0).fit(X)
    np.testing.assert_array_equal(plain.cluster_centers_, model.cluster_centers_)
    if alpha == 1.0:
        assert min(recorder.objectives) == model.objective_


@pytest.mark.parametrize("correlated", [False, True])
def test_callbacks_get_centroids_of_the_rows_at_every_stage_of_a_search(correlated):
    rng = np.random.default_rng(0)
    X = 4 * rng.normal(size=(3, 5))[rng.integers(3, size=3000)] + rng.normal(size=(3000, 5))
    X = X @ rng.normal(size=(5, 20 if correlated else 5)) + 1000

    class Scores(Recorder):
        def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
            if context.task_name == "pass":
                self.objectives.append(-fitted_estimator.score(X))
            return False

    scores = Scores()
    model = EKMeans(3, random_state=0).set_callbacks(scores).fit(X)
    assert len(scores.objectives) > 2 * model.n_iter_ + 2
    # That of a single cluster at the mean; far from the rows it would be a thousand times larger.
    assert max(scores.objectives) < 2 * 0.5 * ((X - X.mean(axis=0)) ** 2).sum()


def test_a_callback_can_stop_the_fit():
    X = set_a()[0]
    recorder = Recorder(last=2)
    model = EKMeans(3, alpha=1.0, random_state=0).set_callbacks(recorder)
    with pytest.warns(UserWarning, match="stopped after 2 passes"):
        model.fit(X)
    assert model.n_iter_ == 2
    assert recorder.calls[-1] == "teardown"


def test_teardown_comes_after_an_error_too():
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        EKMeans(2).set_callbacks(recorder).fit(np.full((5, 2), np.nan))
    assert "teardown" in recorder.calls or recorder.calls == []


def test_callbacks_survive_clone_and_the_progress_bar_runs(capsys):
    pytest.importorskip("rich", reason="scikit-learn's progress bar needs it")
    model = clone(EKMeans(2, alpha=1.0, random_state=0).set_callbacks(callback.ProgressBar()))
    model.fit(set_a()[0])
    assert "EKMeans" in capsys.readouterr().out


def test_verbose_prints_a_line_each_pass(capsys):
    model = EKMeans(3, alpha=1.0, random_state=0, verbose=1).fit(set_a()[0])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= model.n_iter_
    assert lines[0].startswith("pass 1: best objective ")
    assert lines[-1].endswith("0 of 16 runs going")
