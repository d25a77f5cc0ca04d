"""Keys as they are kept: made, listed, replaced, revoked."""

from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import UserError
from pipelines.records import ApiKeyRow
from serve import keys

NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def add(workspace, name="shop", recipe="small", **fields):
    return keys.add(workspace, recipe, name, by="jane", at=NOON, **fields)


def states(workspace, at):
    return [keys.state(row, at) for row in keys.listed(workspace, "small")]


def test_a_key_is_kept_as_its_hash_and_its_first_characters_alone(workspace, rows):
    import hashlib

    made = add(workspace, per_minute=60, expires_days=90)
    (row,) = rows(ApiKeyRow)
    assert row.sha256 == hashlib.sha256(made.key.encode()).hexdigest()
    assert made.key.startswith(row.prefix) and len(row.prefix) == 11
    assert (row.recipe_name, row.name, row.by, row.per_minute) == ("small", "shop", "jane", 60)
    assert row.scopes == "chat feedback events models" and row.revoked_at is None
    assert (row.created_at, row.expires_at) == (NOON, NOON + 90 * DAY)
    kept = [str(getattr(row, column.name)) for column in ApiKeyRow.__table__.columns]
    assert keys.anyone_has_one(workspace, "small", at=NOON)
    assert not any(made.key[11:] in value for value in kept)
    assert made.key not in repr(made) and made.key[11:] not in repr(vars(row))


def test_keys_are_long_and_never_the_same(workspace):
    made = {add(workspace, f"n{number}").key for number in range(20)}
    assert len(made) == 20
    # 43 characters of 6 bits after the mark.
    assert {len(key.removeprefix("sluice_")) for key in made} == {43}


def test_scopes_are_kept_once_and_in_one_order_and_an_unknown_one_is_named_with_the_nearest(workspace):
    assert add(workspace, scopes=["metrics", "chat", "chat"]).row.scopes == "chat metrics"
    with pytest.raises(UserError, match=r"'metric' is no scope; did you mean metrics\?") as refused:
        add(workspace, "other", scopes=["chat", "metric"])
    assert "feedback" in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "problem"), [("", "empty"), ("x" * 256, "256 characters"), ("a\nb", "line breaks"), ("sluice_x", "begin")]
)
def test_a_name_that_says_nothing_or_cannot_be_shown_is_refused(workspace, name, problem):
    with pytest.raises(UserError, match=problem):
        add(workspace, name)
    assert keys.listed(workspace, "small") == []


def test_a_name_has_one_key_until_that_is_revoked(workspace):
    add(workspace)
    add(workspace, recipe="other")
    with pytest.raises(UserError, match="has a key 'shop' already") as refused:
        add(workspace)
    assert "sluice keys rotate" in refused.value.remedy
    keys.revoke(workspace, "small", "shop", at=NOON)
    add(workspace)
    assert states(workspace, NOON) == ["revoked", "active"]


def test_a_key_that_is_replaced_counts_for_the_grace_and_the_new_one_is_like_it(workspace):
    old = add(workspace, scopes=["metrics"], per_minute=7, expires_days=30)
    later = NOON + 20 * DAY
    new = keys.rotate(workspace, "small", "shop", by="ada", at=later)
    assert new.key != old.key and (new.row.scopes, new.row.per_minute, new.row.by) == ("metrics", 7, "ada")
    assert new.row.expires_at == later + 30 * DAY
    assert states(workspace, later) == ["ending", "active"]
    assert states(workspace, later + DAY) == ["revoked", "active"]


def test_a_second_rotation_does_not_prolong_the_first_ones_grace(workspace):
    add(workspace)
    keys.rotate(workspace, "small", "shop", by="jane", grace_hours=1, at=NOON)
    keys.rotate(workspace, "small", "shop", by="jane", grace_hours=24, at=NOON)
    assert states(workspace, NOON + timedelta(hours=2)) == ["revoked", "ending", "active"]


def test_first_characters_of_a_key_that_is_ending_replace_whatever_counts_under_its_name(workspace):
    old = add(workspace)
    keys.rotate(workspace, "small", "shop", by="jane", grace_hours=24, at=NOON)
    keys.rotate(workspace, "small", old.row.prefix, by="jane", grace_hours=1, at=NOON)
    assert states(workspace, NOON) == ["ending", "ending", "active"]
    assert states(workspace, NOON + timedelta(hours=2)) == ["revoked", "revoked", "active"]


def test_a_key_that_is_revoked_while_it_is_replaced_stays_revoked(workspace, monkeypatch):
    add(workspace)
    end = keys._end

    def after_a_revocation(*arguments):
        monkeypatch.setattr(keys, "_end", end)
        keys.revoke(workspace, "small", "shop", at=NOON)
        return end(*arguments)

    monkeypatch.setattr(keys, "_end", after_a_revocation)
    with pytest.raises(UserError, match="was revoked a moment ago"):
        keys.rotate(workspace, "small", "shop", by="jane", at=NOON + timedelta(seconds=1))
    assert states(workspace, NOON) == ["revoked"]


def test_without_a_grace_the_old_key_ends_at_once(workspace):
    add(workspace)
    keys.rotate(workspace, "small", "shop", by="jane", grace_hours=0, at=NOON)
    assert states(workspace, NOON) == ["revoked", "active"]


def test_revoking_ends_all_keys_of_a_name_and_first_characters_name_one(workspace):
    old = add(workspace)
    keys.rotate(workspace, "small", "shop", by="jane", at=NOON)
    (ended,) = keys.revoke(workspace, "small", old.row.prefix, at=NOON)
    assert ended.id == old.row.id and states(workspace, NOON) == ["revoked", "active"]
    keys.revoke(workspace, "small", "shop", at=NOON)
    assert states(workspace, NOON) == ["revoked", "revoked"]
    assert not keys.anyone_has_one(workspace, "small", at=NOON)


def test_a_name_that_is_not_there_is_refused_with_the_nearest_and_a_key_is_never_repeated(workspace):
    made = add(workspace)
    with pytest.raises(UserError, match=r"no key 'shpo' that counts; did you mean shop\?"):
        keys.revoke(workspace, "small", "shpo", at=NOON)
    with pytest.raises(UserError) as refused:
        keys.revoke(workspace, "small", made.key, at=NOON)
    assert made.key not in str(refused.value) and "named by their names" in str(refused.value)
    with pytest.raises(UserError):
        keys.rotate(workspace, "other", "shop", by="jane", at=NOON)


def test_an_expired_key_is_not_replaced_but_made_anew(workspace):
    add(workspace, expires_days=1)
    assert states(workspace, NOON + DAY) == ["expired"]
    with pytest.raises(UserError, match="that counts"):
        keys.rotate(workspace, "small", "shop", by="jane", at=NOON + DAY)
    keys.add(workspace, "small", "shop", by="jane", at=NOON + DAY)
    assert states(workspace, NOON + DAY) == ["expired", "active"]
