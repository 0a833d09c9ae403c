"""Derived UIDs are valid and depend on the content only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from core.uids import derived_uid, digest

values = st.integers() | st.text() | st.floats(allow_nan=False)
keys = st.dictionaries(st.text(), values, max_size=4)


@given(role=st.text(), key=keys)
def test_uids_are_valid_and_repeatable(role: str, key: dict[str, object]) -> None:
    uid = derived_uid(role, key)
    assert UID(uid).is_valid
    assert uid == derived_uid(role, dict(reversed(key.items())))


def test_role_and_content_both_determine_the_uid() -> None:
    uids = {derived_uid("sr", {"a": 1}), derived_uid("sc", {"a": 1}), derived_uid("sr", {"a": 2})}
    assert len(uids) == 3


def test_digest_does_not_depend_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
