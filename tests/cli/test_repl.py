import io
import signal
from codecs import getincrementaldecoder

import pytest

from gpt2kit.cli.repl import Repl
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.jobs.load import load
from gpt2kit.jobs.writing import Writing

GREEDY = SamplingConfig(temperature=0.0)
EIGHT = StopConfig(max_new_tokens=8, ignore_end=True)
CTRL_C = object()


@pytest.fixture(scope="module")
def generator(model):
    with load(model, engine="reference") as generator:
        yield generator


@pytest.fixture
def continued(generator):
    """How the model goes on, greedily or as told, in whole characters."""

    def continued(prompt, sampling=GREEDY):
        ids = generator.generate(prompt, sampling=sampling, stop=EIGHT)[0].ids
        return getincrementaldecoder("utf-8")("replace").decode(b"".join(map(generator.tokenizer.bytes_of, ids)))

    return continued


class Talk:
    """What came of some lines: the text that was printed, the notes beside it, the prompts, the text in the end."""

    def __init__(self, generator, lines, *, terminal=False, sampling=GREEDY, stop=EIGHT, out=None):
        self._lines, self.prompts = list(lines), []
        out, notes = out or io.StringIO(), io.StringIO()
        self.writing = Writing(generator, sampling, stop)
        Repl(self.writing, self._read, out, notes, terminal=terminal).run()
        self.out, self.notes = out.getvalue(), notes.getvalue()
        self.text = self.writing.text

    def _read(self, prompt):
        self.prompts.append(prompt)
        if not self._lines:
            raise EOFError
        if (line := self._lines.pop(0)) is CTRL_C:
            raise KeyboardInterrupt
        return line


@pytest.fixture
def talk(generator):
    def talk(*lines, **options):
        return Talk(generator, lines, **options)

    return talk


# --- entries ---


def test_an_entry_is_continued(talk, continued):
    found = talk("The cat")
    assert (found.out, found.notes) == (continued("The cat") + "\n", "")


def test_entries_are_lines_of_one_text(talk, continued):
    found = talk("The cat", "The dog")
    prompt = "The cat" + continued("The cat") + "\nThe dog"
    assert found.text == prompt + continued(prompt)


def test_an_empty_line_lets_the_model_go_on(talk, continued):
    prompt = "The cat" + continued("The cat")
    assert talk("The cat", "").text == prompt + continued(prompt)


def test_blanks_are_part_of_an_entry(talk, continued):
    assert talk("  The cat ").text == "  The cat " + continued("  The cat ")


def test_two_slashes_begin_a_text_with_one(talk, continued):
    assert talk("//help").text == "/help" + continued("/help")


@pytest.mark.parametrize(
    ("lines", "entry"),
    [
        (['"""', "one", "two", '"""'], "one\ntwo\n"),
        (['"""one', "two", 'three"""'], "one\ntwo\nthree"),
        (['"""', "one", 'two"""'], "one\ntwo"),
        (['"""one"""'], "one"),
        (['"""', "", "/quit", "//", '"""'], "\n/quit\n//\n"),
        (['"""one', "two"], "one\ntwo"),
    ],
    ids=["alone", "beside the text", "mixed", "one line", "nothing in it is a command", "never closed"],
)
def test_three_quotes_hold_an_entry_of_several_lines(talk, continued, lines, entry):
    assert talk(*lines).text == entry + continued(entry)


def test_prompts_are_for_a_terminal(talk):
    lines = ("The cat", '"""', "x", '"""', "/show")
    assert talk(*lines, terminal=True).prompts == [">>> ", ">>> ", "... ", "... ", ">>> ", ">>> "]
    assert set(talk(*lines).prompts) == {""}


def test_the_first_line_says_whose_text_it_is_and_how_to_leave(talk, model):
    first = talk(terminal=True).notes.splitlines()[0]
    assert model in first
    assert "/help" in first
    assert "leaves" in first


def test_an_empty_answer_is_told(talk):
    """Told to end before any text, the model says nothing."""
    found = talk("The cat", "", stop=StopConfig(stop_ids=tuple(range(320))))
    assert (found.out, found.text) == ("", "The cat")
    assert found.notes.count("empty answer") == 2


# --- Ctrl-C ---


class Finger(io.StringIO):
    """Presses Ctrl-C when the answer's third piece is shown."""

    pieces = 0

    def write(self, text):
        self.pieces += 1
        if self.pieces == 3:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


ENDLESS = StopConfig(max_new_tokens=100_000, ignore_end=True)


def test_ctrl_c_while_the_model_writes_stops_the_answer_only(talk):
    found = talk("The cat", "/text", terminal=True, stop=ENDLESS, out=Finger())
    assert len(found.text) < 40
    assert found.out.endswith(found.text + "\n")


def test_ctrl_c_where_nobody_types_ends_the_program(talk):
    with pytest.raises(KeyboardInterrupt):
        talk("The cat", stop=ENDLESS, out=Finger())


def test_afterwards_ctrl_c_means_what_it_meant(talk):
    before = signal.getsignal(signal.SIGINT)
    talk("The cat", terminal=True)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_at_the_prompt_drops_the_line_and_says_how_to_leave(talk, continued):
    found = talk('"""one', CTRL_C, CTRL_C, "The cat", terminal=True)
    assert found.text == "The cat" + continued("The cat")
    assert found.notes.count("or /quit leaves") == 2


# --- commands ---


@pytest.mark.parametrize("word", ["/quit", "/bye", "/exit"])
def test_leaving(talk, word):
    assert talk(word, "The cat").text == ""


@pytest.mark.parametrize("word", ["/new", "/clear"])
def test_a_new_text(talk, continued, word):
    assert talk("The cat", word, "The dog").text == "The dog" + continued("The dog")


def test_undo_says_where_the_text_ends_now(talk, continued):
    found = talk("The cat", "The dog", "/undo")
    assert found.text == "The cat" + continued("The cat")
    assert found.notes == f"the text ends with {found.text!r}\n"


def test_undo_and_retry_need_something_written(talk):
    assert talk("/undo", "/retry").notes == "gpt2: nothing has been written yet\n" * 2


def test_retry_shows_another_answer(talk):
    found = talk("The cat", "/retry", sampling=SamplingConfig(seed=7))
    first, second = found.out.splitlines()
    assert first != second
    assert found.text == "The cat" + second


def test_the_whole_text_can_be_shown(talk):
    found = talk("The cat", "The dog", "/text")
    assert found.out.endswith(found.text + "\n")


def test_settings_are_changed_and_told_as_they_are_typed(talk):
    lines = (
        "temperature = 0.5",
        'stop = ["END", "\\n"]',
        "logit_bias = { 5 = 1.0 }",
        "ignore_end = true",
        "seed = none",
    )
    found = talk(*("/set " + line.replace(" = ", " ", 1) for line in lines))
    assert found.notes.splitlines() == list(lines)


def test_a_wrong_setting_is_one_line_and_changes_nothing(talk):
    found = talk("/set temprature 1", "/set temperature hot", "/set", "/set temperature")
    assert len(found.notes.splitlines()) == 4
    assert "did you mean 'temperature'?" in found.notes
    assert found.writing.sampling == GREEDY


def test_show_tells_what_differs_the_seed_and_the_length(talk, generator):
    found = talk("The cat", "/show", sampling=SamplingConfig(top_k=5))
    assert found.out.splitlines()[-5:] == [
        "top_k = 5",
        "max_new_tokens = 8",
        "ignore_end = true",
        f"# the text: {len(generator.tokenizer.encode(found.text))} tokens; the window: 56",
        f"# the last answer: seed {found.writing.last.seed}",
    ]


def test_the_seed_shown_gives_the_answer_again(talk, continued):
    seed = talk("The cat", "/show", sampling=SamplingConfig()).out.rpartition("seed ")[2]
    found = talk(f"/set seed {seed.strip()}", "The cat", sampling=SamplingConfig())
    assert found.text == "The cat" + continued("The cat", SamplingConfig(seed=int(seed)))


def test_all_settings_can_be_shown_and_typed_back(talk):
    shown = [line for line in talk("/show all").out.splitlines() if not line.startswith("#")]
    found = talk(*(f"/set {line.replace(' = ', ' ', 1)}" for line in shown))
    assert found.notes.splitlines() == shown


def test_the_text_is_saved_but_never_over_another(talk, here):
    found = talk("The cat", "/save a story.txt", "The dog", "/save a story.txt")
    kept = (here / "a story.txt").read_text(encoding="utf-8")
    assert found.text.startswith(f"{kept}\nThe dog")
    assert found.notes.splitlines() == [
        f"saved {len(kept)} characters to a story.txt",
        "gpt2: a story.txt exists; /save! a story.txt replaces it",
    ]
    found = talk("The cow", "/save! a story.txt")
    assert (here / "a story.txt").read_text(encoding="utf-8") == found.text


@pytest.mark.parametrize("words", ["", " ", " nowhere/story.txt", " .", " a\0b"], ids=repr)
def test_what_cannot_be_saved_is_one_line(talk, words):
    assert talk(f"/save{words}").notes.startswith("gpt2: ")
    assert talk(f"/save!{words}").notes.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/sav", "no command /sav; did you mean /save?"),
        ("/frobnicate", "no command /frobnicate; /help lists them; // begins a text that begins with /"),
        ("/", "no command /; /help lists them; // begins a text that begins with /"),
        ("/undo 3", "/undo stands alone, without '3'"),
        ("/show seed", "there is /show and /show all, but no /show seed"),
    ],
)
def test_a_command_that_is_none_is_answered(talk, line, answer):
    found = talk(line)
    assert (found.out, found.notes, found.text) == ("", f"gpt2: {answer}\n", "")


def test_help_names_every_command(talk):
    out = talk("/help").out
    for name in ("set", "show", "show all", "retry", "undo", "text", "save", "save!", "new", "clear", "help"):
        assert f"/{name} " in out.replace(",", " ").replace("\n", " ")


# --- errors ---


def test_after_an_error_the_text_is_as_before_and_the_talk_goes_on(talk, continued):
    stop = StopConfig(max_new_tokens=8, ignore_end=True, overflow="error")
    found = talk("The dog " * 50, "The cat", stop=stop)
    assert found.text == "The cat" + continued("The cat")
    assert found.notes.startswith("gpt2: ")
    assert "window of 56" in found.notes
