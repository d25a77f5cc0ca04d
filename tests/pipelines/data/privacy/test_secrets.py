"""Keys, tokens and passwords: those that are, and what only looks like them."""

from random import Random

import pytest

from pipelines.data.privacy.private import mask_private
from pipelines.data.privacy.secrets import entropy, find_secrets

_RNG = Random(8)
RANDOM = "".join(_RNG.choice("ABCDEFGHIJabcdefghij0123456789") for _ in range(80))


def secrets_of(text):
    return sorted({text[start:end] for start, end in find_secrets(text)})


@pytest.mark.parametrize(
    "token",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + RANDOM[:36],
        "github_pat_" + RANDOM[:22] + "_" + RANDOM[:59],
        "glpat-" + RANDOM[:20],
        "xoxb-" + "1234567890-" + RANDOM[:24],
        "sk_live_" + RANDOM[:24],
        "whsec_" + RANDOM[:32],
        "AIza" + RANDOM[:35],
        "GOCSPX-" + RANDOM[:28],
        "sk-" + RANDOM[:48],
        "sk-ant-api03-" + RANDOM[:60],
        "hf_" + "abcdefghijKLMNOPQRSTuvwxyzABCDEFGH",
        "npm_" + RANDOM[:36],
        "pypi-" + RANDOM[:70],
        "dop_v1_" + "0123456789abcdef" * 4,
        "SG." + RANDOM[:22] + "." + RANDOM[:43],
        "123456789:AA" + RANDOM[:33],
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + RANDOM[:43],
    ],
)
def test_a_token_is_known_by_its_form_wherever_it_stands(token):
    for text in (token, f"Use {token}.", f"'{token}'", f"({token}),", f"https://x.org/?k={token}&z=1"):
        assert secrets_of(text) == [token], text
    assert mask_private(f"Use {token}, then go.") == "Use <secret>, then go."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password=Tr0ub4dor&3", "Tr0ub4dor&3"),
        ("Password: hunter22z!", "hunter22z"),
        ("DB_PASSWORD='a b1' x; PASSWD=\"s3cr3t-pw\"", "s3cr3t-pw"),
        ("my password is Blaubeere77 by the way", "Blaubeere77"),
        ("?password=Tr0ub4dor3&user=joe", "Tr0ub4dor3"),
        (f"api_key = '{RANDOM[:32]}'", RANDOM[:32]),
        (f"aws_secret_access_key={RANDOM[:20]}/{RANDOM[20:39]}", f"{RANDOM[:20]}/{RANDOM[20:39]}"),
        (f'{{"client_secret": "{RANDOM[:24]}"}}', RANDOM[:24]),
        (f"Authorization: Bearer {RANDOM[:40]}", RANDOM[:40]),
        (f"İ is two letters in lower case; token={RANDOM[:32]}", RANDOM[:32]),
        ("redis://:p4ssw0rd@cache.internal:6379/0", "p4ssw0rd"),
        ("https://joe:correct-horse@example.org", "correct-horse"),
    ],
)
def test_a_value_after_a_telling_name_is_secret(text, value):
    assert secrets_of(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "password=None",
        "password: str",
        "password=self.password1",
        "password=${DB_PASSWORD_1}",
        "password=<your-password-1>",
        "password=********",
        "password = read_password_2()",
        "token=abc123",
        f"the key of the table: {RANDOM[:32]}",
        f"checksum {RANDOM[:40]}",
        "api_key=xxxxxxxxxxxxxxxxxxx1",
        "secret=./config/secrets_1.yaml",
        "token: tokens/sentencepiece_8k.model",
        "https://example.org:8080/path@2",
        "https://user:pass@host/",
        "https://user:${PASSWORD}@host/",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQ\n-----END PUBLIC KEY-----",
        "The line -----BEGIN RSA PRIVATE KEY----- begins a private key.",
        "sk-learn-contrib-estimators-of-many-kinds",
    ],
)
def test_names_without_a_value_code_and_placeholders_are_none(text):
    assert secrets_of(text) == []


def test_a_private_key_is_masked_with_its_lines_and_without_its_end():
    body = "\n".join([RANDOM[:64]] * 3)
    key = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----"

    assert mask_private(f"Here:\n{key}\nthanks") == "Here:\n<secret>\nthanks"
    assert RANDOM[:64] not in mask_private(key[:200])


def test_a_secret_that_is_said_again_is_masked_again():
    assert mask_private("password=Tr0ub4dor3 -- now type Tr0ub4dor3.") == "password=<secret> -- now type <secret>."


def test_entropy_is_shannons():
    assert entropy("") == 0
    assert entropy("aaaa") == 0
    assert entropy("abcd") == pytest.approx(2)
    assert entropy("aabb") == pytest.approx(1)
