import warnings

import pytest

from gpt2kit.errors import ConfigError
from gpt2kit.serve.keys import Keys, read_keys

SECRET = "sk-9f8e7d6c5b4a"
UNFIT = ["", " ", "two words", "tab\tbed", "line\n", "clé", "密钥", "\x00", "\x7f"]


def test_each_key_is_accepted_and_nothing_else():
    keys = Keys((SECRET, "other"))
    assert keys.accepts(SECRET)
    assert keys.accepts("other")
    for wrong in ["", SECRET[:-1], SECRET + "x", SECRET.upper(), f" {SECRET}", f"{SECRET}other", "密钥", "\ud800"]:
        assert not keys.accepts(wrong)


def test_no_keys_are_false_and_accept_nothing():
    assert not Keys()
    assert not Keys().accepts("")
    assert Keys((SECRET,))


def test_no_key_can_be_seen():
    keys = Keys((SECRET,))
    assert repr(keys) == "Keys(1)"
    assert SECRET not in str(vars(keys))


@pytest.mark.parametrize("key", UNFIT)
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key):
    with pytest.raises(ConfigError, match=r"^key 2: ") as refusal:
        Keys((SECRET, key))
    assert SECRET not in str(refusal.value)
    with pytest.raises(ConfigError, match=r"^--api-key: "):
        read_keys([key])


def test_keys_come_from_options_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf# of the team\r\n\r\n  first  \r\nsecond\n")
    file.chmod(0o600)
    keys = read_keys(["third", "fourth"], file, "fifth")
    assert all(keys.accepts(key) for key in ["first", "second", "third", "fourth", "fifth"])
    assert not keys.accepts("# of the team")
    assert repr(keys) == "Keys(5)"


@pytest.mark.parametrize("environment", [None, ""])
def test_without_any_source_there_are_no_keys(environment):
    assert not read_keys([], None, environment)


def test_a_key_in_the_environment_is_checked_too():
    with pytest.raises(ConfigError, match=r"^the key in the environment: a key is made of visible ASCII"):
        read_keys(environment="two words")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r": holds no key; write one a line$"),
        (b"# none yet\n\n", r": holds no key; write one a line$"),
        (b"good\ntwo words\n", r", line 2: a key is made of visible ASCII characters"),
        (b"\xff\xfe\x00", r": not a text file; expected a key a line$"),
    ],
)
def test_a_file_without_proper_keys_is_refused(tmp_path, content, problem):
    file = tmp_path / "keys"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=problem) as refusal:
        read_keys(file=file)
    assert "two words" not in str(refusal.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: the keys cannot be read: No such file or directory$"):
        read_keys(file=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"the keys cannot be read: Is a directory$"):
        read_keys(file=tmp_path)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_file_that_only_its_owner_and_group_read_is_fine(tmp_path, mode):
    file = tmp_path / "keys"
    file.write_text(SECRET, "utf-8")
    file.chmod(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_keys(file=file)


def test_a_file_that_everybody_can_read_is_used_with_a_warning(tmp_path):
    file = tmp_path / "keys"
    file.write_text(SECRET, "utf-8")
    file.chmod(0o644)
    with pytest.warns(UserWarning, match=r"every user of this machine can read the keys; chmod 600"):
        assert read_keys(file=file).accepts(SECRET)
