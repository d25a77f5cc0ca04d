"""Card and account numbers: their check digits decide."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.privacy.numbers import find_cards, find_ibans, luhn
from pipelines.data.privacy.private import find_private
from tests.pipelines.data.planted_private import plant

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.integers(0, 30), st.integers(1, 9))
def test_a_card_or_account_number_with_one_digit_changed_is_neither(seed, place, step):
    for kind in ("card", "iban"):
        text, truth = plant("", kind, Random(seed))
        digits = [i for i in range(truth.start, truth.end) if text[i].isdigit()]
        at = digits[place % len(digits)]
        changed = text[:at] + str((int(text[at]) + step) % 10) + text[at + 1 :]

        assert find_private(text, (kind,)) != []
        assert find_private(changed, (kind,)) == []


@pytest.mark.parametrize(
    "number",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111111111111111",
        "4222222222222",
        "378282246310005",
        "3782 822463 10005",
        "3056 930902 5904",
        "5555.5555.5555.4444",
        "2223003122003222",
        "6011111111111117",
        "3530111333300000",
        "6200000000000005",
    ],
)
def test_the_issuers_test_numbers_are_cards(number):
    assert list(find_cards(f"no. {number}, 12/27")) == [(4, 4 + len(number))]


@pytest.mark.parametrize(
    "text",
    [
        "9111111111111116",
        "0000 0000 0000 0000",
        "411111111111111",
        "x4111111111111111",
        "4111111111111111x",
        "0.4111111111111111",
        "4111111111111111.5",
        "1234 4111 1111 1111 1111 5678",
        "41 11 11 11 11 11 11 11",
    ],
)
def test_other_numbers_are_no_cards(text):
    assert list(find_cards(text)) == []


@pytest.mark.parametrize(
    "number",
    [
        "DE89370400440532013000",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14-2004-1010-0505-0001-3M02-606",
        "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S",
        "nl91abna0417164300",
    ],
)
def test_the_registrys_examples_are_account_numbers(number):
    assert list(find_ibans(f"to {number}, thanks")) == [(3, 3 + len(number))]


@pytest.mark.parametrize(
    "text",
    ["DE88370400440532013000", "ZZ89370400440532013000", "DE8937040044053201300", "XDE89370400440532013000", "DE89"],
)
def test_other_countries_lengths_and_remainders_are_none(text):
    assert list(find_ibans(text)) == []


@given(st.text("0123456789", min_size=1, max_size=20))
def test_exactly_one_last_digit_checks_a_number(digits):
    assert sum(luhn(digits + str(last)) for last in range(10)) == 1
