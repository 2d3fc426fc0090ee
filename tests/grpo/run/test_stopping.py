"""Signals: the first stops a run where nothing is lost, the second at once; a stopped run resumes to the same end."""

import os
import signal
import threading
import time

import pytest
from typer.testing import CliRunner

from blip3o_grpo import api
from blip3o_grpo.cli import app
from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.stopping import RunStopped, StopSignals, interruptible


@pytest.fixture
def terminal():
    """As in a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_outside_training_the_first_signal_stops_and_gives_the_exit_code(terminal, number):
    before = signal.getsignal(number)
    with pytest.raises(RunStopped) as stopped, StopSignals():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_in_training_the_first_signal_asks_and_the_second_stops(tmp_path):
    request = tmp_path / ".stop"
    with pytest.raises(RunStopped, match="SIGTERM"), StopSignals() as signals, signals.graceful(request):
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.exists()  # and the block goes on
    assert not request.exists()
    with pytest.raises(RunStopped, match="SIGINT"), StopSignals() as signals, signals.graceful(request):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal was not obeyed")


def test_a_terminal_that_is_closed_asks_like_sigterm_unless_nohup_ignores_it(terminal, tmp_path):
    request = tmp_path / ".stop"
    with pytest.raises(RunStopped, match="SIGHUP") as stopped, StopSignals() as signals, signals.graceful(request):
        os.kill(os.getpid(), signal.SIGHUP)
        assert request.exists()
    assert stopped.value.exit_code == 129
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as signals, signals.graceful(request):
        os.kill(os.getpid(), signal.SIGHUP)
        assert not request.exists()


def test_in_a_thread_of_a_program_signals_stay_with_the_program_and_the_file_stops(tmp_path):
    request, outcome = tmp_path / ".stop", []

    def run():
        try:
            with StopSignals() as signals, signals.graceful(request):
                request.touch()
        except BaseException as error:
            outcome.append(error)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [type(error) for error in outcome] == [RunStopped]
    assert signal.getsignal(signal.SIGINT) == before and not request.exists()


def test_the_command_exits_with_128_and_the_signal():
    import typer

    @one_line_errors
    def command():
        raise RunStopped(signal.SIGTERM)

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 143


@pytest.mark.parametrize(
    ("name", "resumes"),
    [("train", True), ("warmstart", True), ("ablate", True), ("sample", False), ("eval", False), ("report", False)],
)
def test_only_a_command_that_resumes_says_so(monkeypatch, name, resumes):
    """Ctrl-C in the middle of each command's work."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    names = {"warmstart": "load_warmstart", "ablate": "load_study", "eval": "evaluate", "report": "write_report"}
    monkeypatch.setattr(api, names.get(name, name), interrupted)
    result = CliRunner().invoke(app, [name, *{"eval": ["tiny", "--suite", "ocr"]}.get(name, ["tiny_ocr"])])
    assert result.exit_code == 130
    assert result.stderr.startswith("stopped") and ("the same command resumes" in result.stderr) is resumes


def test_a_call_in_a_thread_gives_its_result_its_error_or_way():
    assert interruptible(lambda: 7) == 7
    with pytest.raises(KeyError, match="inner"):
        interruptible(lambda: {}["inner"])
    forever = threading.Event()
    started = time.monotonic()
    assert interruptible(forever.wait, lambda: time.monotonic() - started > 0.1) is None
    forever.set()


@pytest.fixture(scope="module")
def undisturbed(make_config, run_toy):
    return run_toy(make_config(trainer={"max_steps": 4}, checkpoint={"every_steps": 100}))[2]


@pytest.mark.parametrize("when", ["while it waits for rollouts", "in the optimiser step"])
def test_a_stopped_run_keeps_every_finished_step_and_resumes_to_the_same_end(
    make_config, run_toy, undisturbed, when, monkeypatch
):
    config = make_config(trainer={"max_steps": 4}, checkpoint={"every_steps": 100})
    folder = RunFolder(config.run_dir)
    if when == "in the optimiser step":
        from blip3o_grpo.training.trainer import ImageGRPOTrainer

        class StoppedInStep(ImageGRPOTrainer):
            def compute_loss(self, *args, **kwargs):
                if self.state.global_step == 2 and not resumed:
                    folder.stop.touch()
                return super().compute_loss(*args, **kwargs)

        monkeypatch.setattr("blip3o_grpo.rank.ImageGRPOTrainer", StoppedInStep)
    resumed = []
    options = {"hang_at": 3} if when != "in the optimiser step" else {}
    run_toy(config, **options)
    done = 2 if options else 3  # the step itself is finished where it can be
    assert folder.newest_step() == done
    assert [line["step"] for line in read_metrics(folder.metrics)] == list(range(1, done + 1))
    resumed.append(True)
    folder.stop.unlink()
    _, _, metrics = run_toy(config)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    for ours, theirs in zip(metrics, undisturbed, strict=True):
        for name in theirs:
            if not name.startswith("time/"):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


def test_a_stop_before_the_first_step_leaves_nothing_to_resume(make_config, run_toy):
    config = make_config()
    run_toy(config, hang_at=1)
    assert RunFolder(config.run_dir).newest_step() == 0
