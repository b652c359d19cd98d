import signal
import threading

import pytest

from gpt2kit.jobs.interruptible import Interruptible
from gpt2kit.progress import Progress, silent

TRAINING = Progress("train", 1, 9, "step")


@pytest.fixture
def interruptible():
    return Interruptible(silent, lambda: print("saving"))


def test_while_training_the_first_ctrl_c_only_asks(interruptible, capsys):
    with interruptible:
        interruptible.report(TRAINING)
        assert not interruptible()
        signal.raise_signal(signal.SIGINT)
        assert interruptible()
    assert capsys.readouterr().out == "saving\n"


def press_ctrl_c(interruptible, *, after):
    with interruptible:
        for progress in after:
            interruptible.report(progress)
        signal.raise_signal(signal.SIGINT)


def test_the_second_ctrl_c_ends_at_once(interruptible):
    press_ctrl_c(interruptible, after=[TRAINING])
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c(interruptible, after=[])


def test_a_measurement_is_part_of_training(interruptible):
    press_ctrl_c(interruptible, after=[TRAINING, Progress("validate", 0, 9, "window")])
    assert interruptible()


@pytest.mark.parametrize(
    "progress",
    [Progress("encode", 1, None, "character"), Progress("train", 9, 9, "step"), Progress("evaluate", 1, 9, "token")],
    ids=["before", "at the end", "after"],
)
def test_when_nothing_is_to_be_saved_ctrl_c_ends_at_once(interruptible, progress):
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c(interruptible, after=[TRAINING, progress])


def test_afterwards_ctrl_c_means_what_it_meant(interruptible):
    before = signal.getsignal(signal.SIGINT)
    with interruptible:
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_reports_are_passed_on():
    heard = []
    Interruptible(heard.append, list).report(TRAINING)
    assert heard == [TRAINING]


def test_outside_of_the_main_thread_it_leaves_signals_alone(interruptible):
    before, inside = signal.getsignal(signal.SIGINT), []

    def work():
        with interruptible:
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
