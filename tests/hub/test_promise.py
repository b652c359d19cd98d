"""What headers promise. The headers are of the kind that the real servers send."""

from gpt2kit.hub.promise import Promise, told_by
from gpt2kit.hub.web import Answer

OID, COMMIT, BLOB = "a" * 64, "c" * 40, "b" * 40


def answer(status=200, linked=None, **headers):
    named = {name.lower().replace("_", "-"): value for name, value in headers.items()}
    return Answer("https://example.org/f", status, "", named, linked or {}, iter(()))


def test_the_hub_tells_of_a_large_file_before_it_sends_us_elsewhere():
    linked = {"x-linked-etag": f'"{OID}"', "x-linked-size": "548105171", "x-repo-commit": COMMIT}
    told = told_by(answer(linked=linked, ETag='"e57fe90b"', Content_Length="548105171"))
    assert told == Promise(size=548105171, sha256=OID, validator='"e57fe90b"')


def test_the_etag_of_a_small_file_on_the_hub_is_gits_hash():
    told = told_by(answer(ETag=f'W/"{BLOB}"', X_Repo_Commit=COMMIT, Content_Length="665"))
    assert told == Promise(size=665, git_sha1=BLOB)


def test_an_etag_that_is_no_hash_of_the_file_is_only_a_validator():
    assert told_by(answer(ETag=f'"{BLOB}"')) == Promise(validator=f'"{BLOB}"')
    assert told_by(answer(ETag=f'"{COMMIT}"', X_Repo_Commit=COMMIT)) == Promise(validator=f'"{COMMIT}"')
    assert told_by(answer(ETag=f'"{OID}"')) == Promise(validator=f'"{OID}"')


def test_azures_md5_is_of_the_file_in_a_whole_answer_only():
    md5 = {"Content_MD5": "XUFAKrxLKna5cZ2REBfFkg=="}  # of "hello"
    assert told_by(answer(ETag='"0x8D"', **md5)).md5 == "5d41402abc4b2a76b9719d911017c592"
    assert told_by(answer(status=206, ETag='"0x8D"', **md5)).md5 is None
    assert (
        told_by(answer(status=206, x_ms_blob_content_md5=md5["Content_MD5"])).md5 == "5d41402abc4b2a76b9719d911017c592"
    )


def test_the_time_of_the_last_change_validates_where_the_etag_is_weak():
    changed = "Fri, 27 Nov 2020 10:00:00 GMT"
    assert told_by(answer(ETag='W/"1"', Last_Modified=changed)).validator == changed


def test_a_part_tells_the_size_of_the_whole():
    assert told_by(answer(status=206, Content_Range="bytes 5-9/10", Content_Length="5")).size == 10
    assert told_by(answer(status=206, Content_Range="bytes 5-9/*", Content_Length="5")).size is None


def test_lengths_of_packed_bytes_are_not_those_of_the_file():
    assert told_by(answer(Content_Encoding="gzip", Content_Length="5", ETag='"1"')) == Promise()


def test_nonsense_promises_nothing():
    nonsense = {"Content_Length": "-5", "Content_MD5": "?", "x_linked_size": "1e9", "X_Linked_Etag": '"not a hash"'}
    assert told_by(answer(**nonsense)) == Promise()


def test_a_promise_survives_being_stored():
    whole = Promise(5, OID, BLOB, "d" * 32, '"1"')
    assert Promise.restored(whole.stored()) == whole


def test_what_was_stored_by_somebody_else_is_not_trusted():
    assert Promise.restored({"size": "5", "sha256": 7, "validator": ["x"], "other": 1}) == Promise()
