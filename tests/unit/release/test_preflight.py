"""Before a release begins: everything that speaks against it is told at once, and nothing has been started."""

import json
import math
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from made_bundle import made_bundle, made_results
from made_world import NEW, OLD, release
from ports import free_port
from tokens_made import public_jwk, write_keys

from assay.release.bundle.manifest import Claim, Verdict
from assay.release.bundle.read import read
from assay.release.layout import Layout
from assay.release.observations import Role
from assay.release.ramp import preflight
from assay.release.ramp.decide import begin
from assay.release.ramp.find import resolved
from assay.release.ramp.preflight import Pair, Refused
from assay.release.ramp.processes import Supervised
from assay.release.ramp.start import Options, _served, start
from assay.release.ramp.takeover import NONCES
from assay.release.schema import Release


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    results = made_results(tmp_path_factory.mktemp("results"))
    return preflight.pair_of(made_bundle(results, "mlp"), made_bundle(results, "wide"))


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "jwks.json", public_jwk(ed25519.Ed25519PrivateKey.generate(), "1"))


def made(jwks: Path, port: int = 0, **changes: Any) -> Release:
    token = {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": "x"}
    return release(serving={"jwt": token}, routing={"port": port or free_port()}, **changes)


def refused(release: Release, tmp_path: Path, pair: Pair, forced: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        preflight.check(release, Layout(tmp_path / "r"), pair, forced=forced, front=None)
    return str(caught.value)


def changed(pair: Pair, **update: Any) -> Pair:
    return Pair(pair.stable, pair.candidate, pair.old, pair.new.model_copy(update=update))


def claim(word: str, arm: str, baseline: str, metric: str = "accuracy") -> Verdict:
    stated = Claim(
        metric=metric,
        arm=arm,
        baseline=baseline,
        verdict=word,
        sentence=f"{arm} is {word} than {baseline}",
        estimate=None,
        low=None,
        high=None,
    )
    return Verdict(headline="It is so.", contract_valid=True, claims=[stated])


def test_two_whole_bundles_may_begin_and_the_offline_verdict_is_shown(
    pair: Pair, tmp_path: Path, jwks: Path
) -> None:
    said = preflight.check(made(jwks), Layout(tmp_path / "r"), pair, forced=None, front=None)
    assert said[0].startswith("offline: ")


def test_versions_that_do_not_fit_are_refused(pair: Pair, tmp_path: Path, jwks: Path) -> None:
    same = Pair(pair.stable, pair.stable, pair.old, pair.old)
    assert "are the same version" in refused(made(jwks), tmp_path, same)
    shape = pair.new.input.model_copy(update={"shape": (16, 16, 3)})
    assert "takes [8, 8, 1], the candidate [16, 16, 3]" in refused(
        made(jwks), tmp_path, changed(pair, input=shape)
    )
    classes = [*pair.new.classes[:-1], "ten"]
    said = refused(made(jwks), tmp_path, changed(pair, classes=classes))
    assert "classes differ: number 9 is '9' and 'ten'" in said
    assert "10 and 9 of them" in refused(made(jwks), tmp_path, changed(pair, classes=classes[:-1]))


@pytest.mark.parametrize(("word", "arm", "baseline"), [("worse", "wide", "mlp"), ("better", "mlp", "wide")])
def test_a_candidate_that_is_worse_offline_takes_a_reason(
    pair: Pair, tmp_path: Path, jwks: Path, word: str, arm: str, baseline: str
) -> None:
    bad = changed(pair, verdict=claim(word, arm, baseline))
    assert f"{arm} is {word} than {baseline}; to release it all the same" in refused(
        made(jwks), tmp_path, bad
    )
    layout = Layout(tmp_path / "r")
    assert preflight.check(made(jwks), layout, bad, forced="faster", front=None) == ["offline: It is so."]
    fine = changed(pair, verdict=claim("inconclusive", arm, baseline))
    preflight.check(made(jwks), layout, fine, forced=None, front=None)


def test_what_a_candidate_costs_is_told_and_refuses_nothing(pair: Pair, tmp_path: Path, jwks: Path) -> None:
    """The verdict is about the experiment's first metric."""
    cost = claim("worse", "wide", "mlp", metric="latency_ms@1")
    costly = changed(pair, verdict=cost.model_copy(update={"metric": "accuracy"}))
    assert preflight.check(made(jwks), Layout(tmp_path / "r"), costly, forced=None, front=None) == [
        "offline: It is so.",
        "offline: wide is worse than mlp",
    ]
    for metric in ("latency_ms@1", None):  # what it is about; a bundle that does not say
        about = changed(pair, verdict=cost.model_copy(update={"metric": metric}))
        assert "wide is worse than mlp; to release it all the same" in refused(made(jwks), tmp_path, about)


def test_all_that_is_wrong_is_told_at_once(pair: Pair, tmp_path: Path, jwks: Path) -> None:
    secrets = tmp_path / "callers"
    secrets.write_text("a b\n")
    secrets.chmod(0o644)
    jwks.chmod(0o602)
    key = tmp_path / "key.pem"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        wrong = release(
            serving={
                "jwt": {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": "x"},
                "signatures": {"secrets": str(secrets)},
            },
            routing={"port": port, "tls": {"certificate": "env:NO_SUCH_VARIABLE", "key": str(key)}},
        )
        said = refused(wrong, tmp_path, Pair(pair.stable, pair.stable, pair.old, pair.old))
    for words in (
        "are the same version",
        f"serving.jwt.jwks: {jwks}: everybody may write to it; run: chmod o-w",
        f"serving.signatures.secrets: {secrets}: others may read it; run: chmod 600 {secrets}",
        "routing.tls.certificate: the variable NO_SUCH_VARIABLE is not set",
        f"routing.tls.key: {key}: No such file or directory",
        f"routing.port: 127.0.0.1 port {port}: Address already in use",
    ):
        assert words in said, said
    assert len(said.splitlines()) == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no JWK set; write"),
        ("{}", "is no JWK set; write"),
        ('{"keys": []}', "has no key for EdDSA"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "d": "AAAA"}]}', "is a private key"),
    ],
)
def test_keys_by_which_nobody_would_be_known_are_refused_before_anything_starts(
    pair: Pair, tmp_path: Path, jwks: Path, content: str, words: str
) -> None:
    jwks.write_text(content)
    said = refused(made(jwks), tmp_path, pair)
    assert f"serving.jwt.jwks: {jwks}: " in said
    assert words in said


def test_keys_that_are_shared_are_secret_and_public_ones_are_not(
    pair: Pair, tmp_path: Path, jwks: Path
) -> None:
    jwks.chmod(0o644)
    preflight.check(made(jwks), Layout(tmp_path / "r"), pair, forced=None, front=None)
    jwks.write_text('{"keys": []}')
    token = {"jwks": str(jwks), "algorithms": ["HS256"], "audience": "x"}
    shared = release(serving={"jwt": token}, routing={"port": free_port()})
    assert f"serving.jwt.jwks: {jwks}: others may read it; run: chmod 600 {jwks}" in refused(
        shared, tmp_path, pair
    )


def test_a_comparison_that_compares_more_than_the_models_is_told(
    pair: Pair, tmp_path: Path, jwks: Path
) -> None:
    invalid = claim("better", "wide", "mlp").model_copy(update={"contract_valid": False})
    said = preflight.check(
        made(jwks), Layout(tmp_path / "r"), changed(pair, verdict=invalid), forced=None, front=None
    )
    assert any("the comparison's contract was not valid" in text for text in said)


def test_secrets_and_certificates_that_could_not_be_used_are_refused(
    pair: Pair, tmp_path: Path, jwks: Path
) -> None:
    files = {name: tmp_path / name for name in ("callers", "chain.pem", "key.pem")}
    for path in files.values():
        path.write_text("mine short\n")
        path.chmod(0o600)
    wrong = release(
        serving={
            "jwt": {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": "x"},
            "signatures": {"secrets": str(files["callers"])},
        },
        routing={
            "port": free_port(),
            "tls": {"certificate": str(files["chain.pem"]), "key": str(files["key.pem"])},
        },
    )
    first, second = refused(wrong, tmp_path, pair).splitlines()
    assert "serving.signatures.secrets: line 1: the secret is shorter than" in first
    assert f"routing.tls: {files['chain.pem']} with {files['key.pem']}: " in second
    assert second.endswith("both PEM, the key without a passphrase")


def test_an_address_of_another_machine_is_told_apart_from_a_port_that_is_taken(
    pair: Pair, tmp_path: Path, jwks: Path
) -> None:
    token = {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": "x"}
    far = release(serving={"jwt": token}, routing={"address": "192.0.2.1"})  # RFC 5737: for documentation
    assert "routing.address: 192.0.2.1 port" in refused(far, tmp_path, pair)


def test_what_a_release_began_with_is_found_from_every_folder(
    bundle: Path, other_bundle: Path, tmp_path: Path, jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A roll-back from another folder wrote its record into a registry that it made there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("assay.release.ramp.start._run", lambda release, *_: release)
    asked = release(
        versions={"stable": str(bundle), "candidate": str(other_bundle)},
        serving={"jwt": {"jwks": jwks.name, "algorithms": ["EdDSA"], "audience": "x"}},
        routing={"front": "python", "port": free_port()},
    )
    start(asked, Options(), print)
    monkeypatch.chdir("/")
    begun = resolved(Layout(tmp_path / "releases" / "digits"))
    assert begun.registry.uri == str(tmp_path / "releases" / "registry")
    assert begun.serving.jwt is not None and begun.serving.jwt.jwks == str(jwks)


@dataclass
class Begun:
    """What the journal is begun with."""

    given: list[Any] = field(default_factory=list)

    def begin(self, *given: Any) -> None:
        self.given += given


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """`start` up to where something would be started."""
    found = Begun()
    monkeypatch.setattr("assay.release.ramp.start._run", lambda *given: given[4](found))
    return found


def test_the_reason_for_a_worse_candidate_is_kept(
    bundle: Path, other_bundle: Path, tmp_path: Path, jwks: Path, begun: Begun
) -> None:
    """And what is served are the registry's own copies, which nobody builds anew."""
    registry = tmp_path / "registry"
    asked = made(
        jwks,
        folder=str(tmp_path / "releases"),
        registry={"model": "digits", "uri": str(registry)},
        versions={"stable": str(bundle), "candidate": str(other_bundle)},
    )
    start(asked, Options(forced="it is faster"), print)
    stable, candidate, reason, predecessor = begun.given
    assert reason.endswith("; forced: it is faster") and predecessor is None
    for version in (stable, candidate):
        assert Path(version.folder) == registry / "digits" / "versions" / version.version
    assert read(bundle).manifest.version == stable.version


def test_signed_requests_that_were_taken_stay_taken_by_the_next_release(
    bundle: Path,
    other_bundle: Path,
    tmp_path: Path,
    jwks: Path,
    begun: Begun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier = Layout(tmp_path / "releases" / "last")
    earlier.shared.mkdir(parents=True)
    (earlier.shared / NONCES).write_text("taken")
    monkeypatch.setattr("assay.release.ramp.start.port_is_free", lambda *_: False)
    monkeypatch.setattr("assay.release.ramp.takeover.on_port", lambda *_: earlier)
    monkeypatch.setattr("assay.release.ramp.takeover.against", lambda *_: [])
    asked = made(
        jwks,
        folder=str(tmp_path / "releases"),
        registry={"model": "digits", "uri": str(tmp_path / "registry")},
        versions={"stable": str(bundle), "candidate": str(other_bundle)},
    )
    start(asked, Options(), print)
    assert begun.given[3] == "last"
    assert (tmp_path / "releases" / "digits" / "run" / "shared" / NONCES).samefile(earlier.shared / NONCES)


@dataclass
class Addresses(Supervised):
    """Of versions that run."""

    known: dict[str, str | None] = field(default_factory=dict)

    def address(self, role: Role) -> str | None:
        return self.known[role]


def test_both_versions_are_asked_before_the_first_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "health", lambda *asked: [f"asked {asked}"])
    state = begin(release(), OLD, NEW, "a test").state
    services = Addresses(Layout(tmp_path), known={"stable": "here:1", "candidate": "here:2"})
    assert _served(state, services) == ["asked ('here:1', 'old')", "asked ('here:2', 'new')"]
    services.known["candidate"] = None
    assert _served(state, services)[1:] == ["candidate: does not run"]


def test_a_disk_without_room_and_a_folder_of_others_are_refused(
    pair: Pair, tmp_path: Path, jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be written to"):
        preflight.check(made(jwks), Layout(tmp_path / "file" / "r"), pair, forced=None, front=None)
    monkeypatch.setattr(preflight, "LEAST_FREE_BYTES", 1 << 60)
    assert "MB free" in refused(made(jwks), tmp_path, pair)


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (200, {"model_version": "v", "golden": {"deviation": 0.1, "tolerance": 0.2}}, None),
        (200, {"model_version": "w", "golden": {"deviation": 0.1, "tolerance": 0.2}}, "serves w, not v"),
        (
            200,
            {"model_version": "v", "golden": {"deviation": 0.3, "tolerance": 0.2}},
            "golden outputs are off by 0.3",
        ),
        (200, {"model_version": "v"}, "golden outputs are off by None"),
        (
            200,
            {"model_version": "v", "golden": {"deviation": math.nan, "tolerance": 0.2}},
            "golden outputs are off by nan",
        ),
        (503, {}, "/health/ready answers 503"),
        (200, None, "/health/ready: "),
        (200, [1], "/health/ready: "),
    ],
)
@pytest.mark.usefixtures("site_proxy")
def test_a_version_that_runs_must_be_the_one_that_is_meant(status: int, said: Any, words: str | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is theirs."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    found = preflight.health(address, "v")
    server.shutdown()
    server.server_close()
    assert (found == []) if words is None else (words in found[0])
    if words is not None:
        assert preflight.health(address, "v"), "nobody listens any more"
