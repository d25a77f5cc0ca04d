"""Where a service listens, and by which certificate."""

import datetime
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from cluster.errors import UserError
from serve.client import Client, ServiceError
from serve.listening import Address, _check_free, _check_same, _running, address, check_on_head, end_proxy, start_proxy
from tests.serve.test_app import free_port


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone_reaches_its_own_addresses(host):
    assert Address(host).is_here_alone


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "example.org", "127.0.0.1.example.org"])
def test_others_reach_all_else(host):
    assert not Address(host).is_here_alone


def test_the_url_is_one_that_this_machine_can_ask():
    assert Address("0.0.0.0", 9000).url == "http://127.0.0.1:9000"
    assert Address("::", 9000, "c.pem", "k.pem").url == "https://127.0.0.1:9000"
    assert Address("::1", 9000).url == "http://[::1]:9000"
    assert Address("example.org", 9000).url == "http://example.org:9000"


@pytest.fixture
def signed(tmp_path):
    """`signed(name)`: PEM files of a certificate for this machine that signed itself, and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(name, password=None):
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        form, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        files = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(form))
        files[1].write_bytes(key.private_bytes(form, kind, hidden))
        return tuple(map(str, files))

    return make


def test_paths_are_made_whole_where_this_machine_listens(signed, monkeypatch):
    certificate, key = signed("one")
    monkeypatch.chdir(Path(certificate).parent)
    assert address("localhost", 1, "one.pem", "one.key", is_here=True) == Address("localhost", 1, certificate, key)
    assert address("localhost", 1, None, None, is_here=True) == Address("localhost", 1)
    # The head has them, and this machine cannot look.
    assert address("0.0.0.0", 1, "/of/the/head.pem", "/of/the/head.key", is_here=False).key == "/of/the/head.key"


@pytest.mark.parametrize(
    ("certificate", "key", "is_here", "said"),
    [
        ("one.pem", None, True, "one of them is missing"),
        (None, "one.key", False, "one of them is missing"),
        ("none.pem", "one.key", True, r"none\.pem cannot be read: No such file"),
        ("one.pem", ".", True, "cannot be read: Is a directory"),
        ("one.pem", "other.key", True, "no certificate and its private key: .*MISMATCH"),
        ("one.key", "one.pem", True, "no certificate and its private key"),
        ("hidden.pem", "hidden.key", True, "no certificate and its private key"),
        ("one.pem", "one.key", False, "one.pem: the cluster's head listens"),
    ],
)
def test_what_is_no_pair_is_a_sentence(signed, tmp_path, monkeypatch, certificate, key, is_here, said):
    signed("one"), signed("other"), signed("hidden", b"secret")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as refused:
        address("localhost", 8000, certificate, key, is_here=is_here)
    assert refused.value.remedy


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_port_is_free_or_it_is_a_sentence(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        port = taken.getsockname()[1]
        taken.listen()
        with pytest.raises(UserError, match="cannot be used: Address already in use"):
            _check_free(Address(host, port))
    _check_free(Address(host, port))
    with pytest.raises(UserError, match="cannot be used"):
        _check_free(Address("192.0.2.7", port))


def test_a_serve_that_runs_otherwise_is_a_sentence_with_its_address():
    def running(host="127.0.0.1", port=8000, certificate=None, key=None):
        return SimpleNamespace(host=host, port=port, ssl_certfile=certificate, ssl_keyfile=key)

    _check_same(running(), Address())
    _check_same(running(certificate="c", key="k"), Address("127.0.0.1", 8000, "c", "k"))
    with pytest.raises(UserError, match=r"already, at 127.0.0.1:8000; .* 127.0.0.1:9000") as refused:
        _check_same(running(), Address("127.0.0.1", 9000))
    assert "--port 8000" in refused.value.remedy
    with pytest.raises(UserError, match=r"at 127.0.0.1:8000"):
        _check_same(running(), Address("0.0.0.0", 8000))
    with pytest.raises(UserError, match="without HTTP"):
        _check_same(running(None), Address())
    with pytest.raises(UserError, match="already, with no certificate"):
        _check_same(running(), Address("127.0.0.1", 8000, "c", "k"))
    with pytest.raises(UserError, match="already, with the certificate c"):
        _check_same(running(certificate="c", key="k"), Address())


@pytest.mark.cluster
def test_a_taken_port_is_a_sentence(ray_cluster):
    from ray import serve as ray_serve

    ray_serve.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used"):
            start_proxy(Address("127.0.0.1", taken.getsockname()[1]))


@pytest.mark.cluster
def test_a_certificate_lets_https_in_and_nothing_else(ray_cluster, signed):
    from ray import serve as ray_serve

    @ray_serve.deployment(ray_actor_options={"num_cpus": 0})
    class Hello:
        async def __call__(self, request):
            return "hello"

    ray_serve.shutdown()
    certificate, key = signed("one")
    where = Address("127.0.0.1", free_port(), certificate, key)
    with pytest.raises(UserError, match=r"none\.pem cannot be read: No such file"):
        check_on_head(replace(where, certificate="none.pem"))
    check_on_head(where)
    start_proxy(where)
    try:
        ray_serve.run(Hello.bind(), name="hello", route_prefix="/")
        trusted = ssl.create_default_context(cafile=certificate)
        url = f"https://localhost:{where.port}/"
        assert httpx.get(url, verify=trusted, timeout=60).text == "hello"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url, timeout=60)
        with Client(url) as client, pytest.raises(ServiceError, match="CERTIFICATE_VERIFY_FAILED") as untrusted:
            client.health()
        assert "SSL_CERT_FILE" in untrusted.value.remedy
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{where.port}/", timeout=60)
    finally:
        end_proxy(within_s=30)
    assert _running() is None
    # As one that was told twice.
    end_proxy(within_s=30)
    start_proxy(Address("127.0.0.1", where.port))
    end_proxy(within_s=30)
