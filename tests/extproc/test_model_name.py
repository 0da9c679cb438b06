import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.extproc.model_name import renamed

LONG = "x" * 4_000_000


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"model":"a","n":1.0}', b'{"model":"b","n":1.0}'),
        (b'{ "n" : 1e3, "model"\n:  "a" }', b'{ "n" : 1e3, "model"\n:  "b" }'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"b"}'),
        (b'{"model":"a","x":{"model":"a"}}', b'{"model":"b","x":{"model":"a"}}'),
        # The last of two is the one that is read.
        (b'{"model":"c","model":"a"}', b'{"model":"c","model":"b"}'),
        (b'{"role":"model","model":"a"}', b'{"role":"model","model":"b"}'),
        (
            b'{"p":"say \\"model\\":\\"a\\"","model":"a"}',
            b'{"p":"say \\"model\\":\\"a\\"","model":"b"}',
        ),
        (b'{"model":"a\\"\\u00e4"}', b'{"model":"b"}'),
    ],
)
def test_the_name_alone_is_replaced(body, changed):
    assert renamed(body, "b") == changed


@pytest.mark.parametrize(
    "body", [b'{"mod\\u0065l":"a"}', b'{"m":[' + b'{"model":"a"},' * 9 + b'{}],"model":"a"}']
)
def test_what_hides_the_name_is_written_anew(body):
    assert orjson.loads(renamed(body, "b")) == {**orjson.loads(body), "model": "b"}


def test_the_same_name_changes_nothing():
    body = b'{ "model": "a" }'
    assert renamed(body, "a") is body


def test_a_name_is_written_as_json():
    assert json.loads(renamed(b'{"model":"a"}', '"\\'))["model"] == '"\\'


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(ValueError, match=r"(?i)json|input|unexpected|end of"):
        renamed(body, "b")


JSON = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.just("model"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "x", '"model":']), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON), at=st.integers(0, 3))
def test_nothing_but_the_model_changes(fields, at):
    items = list(fields.items())
    items.insert(at, ("model", "old"))
    body = json.dumps(dict(items)).encode()
    assert json.loads(renamed(body, "new")) == dict(items) | {"model": "new"}


def test_a_hostile_body_is_answered_in_time():
    nested = b'{"model":"a",' + b'"x":{"model":"a"},' * 1000 + b'"p":"' + LONG.encode() + b'"}'
    started = time.process_time()
    renamed(nested, "b")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"model": "a", "n": 1}',
        '{"model": "a", "n": 1}'.encode("utf-16"),
        b'{"model": null, "n": 1}',
        b'{"n": 1}',
        b'{"m\\u006fdel": "a", "n": 1, "x": NaN}',
    ],
)
def test_whatever_pythons_json_reads_can_ask_for_another_model(body):
    asked = json.loads(renamed(body, "b"))
    assert (asked["model"], asked["n"]) == ("b", 1)
