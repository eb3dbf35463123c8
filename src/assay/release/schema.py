"""The release file: two versions, how they are served and routed, how far and how fast, and when to turn back."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from assay.config.arm import Name, Section

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]

STABLE, CANDIDATE = "stable", "candidate"
"""The two versions by role; which bundle has which is the registry's to say."""


class Registry(Section):
    """Where versions are known by alias: `champion` is what users have, `candidate` what may follow it."""

    model: Name = Field(description="Name of the model in the registry.")
    uri: str = Field(
        default="releases/registry",
        description="`http(s)://…` of an MLflow server, or a folder.",
    )


class Bundles(Section):
    """The two versions: a bundle's folder, or `@ALIAS` of the registry."""

    stable: str = Field(default="@champion", description="What users have now.")
    candidate: str = Field(default="@candidate", description="What may follow it.")


class Batching(Section):
    """Requests that wait at the same time go through the model together; the same for both versions."""

    size: int = Field(default=1, ge=1, le=1024, description="Most samples in a batch; 1: no batching.")
    wait_ms: float = Field(default=2.0, ge=0, le=1000, description="Longest wait of a request for others.")


class Jwt(Section):
    """Bearer tokens: who asks. Keys come from a file, read again when it changes."""

    jwks: str = Field(
        description="File of public or shared keys (RFC 7517), or `env:NAME`; several at once while keys rotate."
    )
    algorithms: list[Literal["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"]] = Field(
        min_length=1, description="Accepted signatures; never taken from the token itself."
    )
    audience: str = Field(min_length=1, description="What `aud` must say.")
    issuer: str | None = Field(default=None, description="What `iss` must say; null: anything.")
    rotation_days: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="The file is written anew at least so often: an older one raises an alert; null: no alert.",
    )
    leeway_seconds: Seconds = Field(default=10, description="Clock difference that is forgiven.")
    required: bool = Field(
        default=True,
        description="Requests without a token are refused; false: they are anonymous, and the stable version's.",
    )


class Signatures(Section):
    """HMAC over body, timestamp and nonce, for callers that must prove that a request is theirs and new."""

    secrets: str = Field(
        description="File with lines `KEY_ID SECRET`, readable by its owner alone, or `env:NAME`."
    )
    window_seconds: float = Field(
        default=60, gt=0, le=3600, description="Age at which a request is refused; nonces are kept as long."
    )


class Limits(Section):
    """What one caller may ask."""

    body_bytes: int = Field(default=1_048_576, ge=1, description="Largest request body.")
    samples: int = Field(default=64, ge=1, description="Most samples in one request.")
    timeout_seconds: float = Field(default=10, gt=0, description="Longest a request may take.")
    per_user: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]*/(second|minute|hour)$",
        description="Requests per verified user and version, e.g. `600/minute`; null: no limit.",
    )
    per_address: int | None = Field(
        default=None,
        ge=1,
        description="Requests a second per client address, held by the front; null: no limit.",
    )


class Serving(Section):
    """How each version runs: the same for both, so that a difference is the model's."""

    environment: Literal["host", "venv", "apptainer"] = Field(
        default="host",
        description="`host`: this environment; `venv`: one made from the bundle's lock; `apptainer`: its image.",
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where the model runs.")
    workers: int = Field(default=2, ge=1, le=256, description="Processes per version.")
    threads: int = Field(default=1, ge=1, description="PyTorch's threads per worker.")
    cpus: int | None = Field(
        default=None,
        ge=1,
        description="CPU cores per version, in disjoint sets of equal size; null: unbound.",
    )
    batching: Batching = Batching()
    jwt: Jwt | None = Field(default=None, description="Verified identities; null: every user is anonymous.")
    signatures: Signatures | None = Field(default=None, description="Signed requests; null: none asked.")
    limits: Limits = Limits()
    log_megabytes: float = Field(default=100, gt=0, description="Size at which a log is rotated.")
    log_files: int = Field(default=10, ge=1, description="Rotated logs that are kept, of each kind.")


class Tls(Section):
    """Certificate and key of the front."""

    certificate: str = Field(description="File of the certificate chain (PEM).")
    key: str = Field(description="File of the key (PEM).")


_TAKEN = re.compile(
    r"accept|authorization|connection|content-.*|expect|host|keep-alive|te|trailer|transfer-encoding|upgrade|"
    r"x-assay-(?!version$).*|x-forwarded-.*|x-request-id"
)
"""The testers' header goes no further than the front."""


class Routing(Section):
    """How users come to a version."""

    front: Literal["nginx", "python"] = Field(
        default="nginx", description="`python`: Assay's own front, for machines without nginx; same split."
    )
    address: str = Field(
        default="127.0.0.1", description="IP address of this machine that the front listens on; 0.0.0.0: all."
    )
    port: Port = Field(default=8080, description="Port that the front listens on.")
    tls: Tls | None = Field(default=None, description="HTTPS; null: plain HTTP.")
    header: str = Field(
        default="X-Assay-Version",
        pattern=r"^[A-Za-z][A-Za-z0-9-]*$",
        description="Testers choose a version by it: `stable` or `candidate`.",
    )
    testers: list[str] = Field(
        default=[], description="Users (`sub`) who may choose by header; `*`: everyone may."
    )
    early_users: list[str] = Field(
        default=[], description="Users (`sub`) who have the candidate from the first step on."
    )
    trusted_proxies: list[str] = Field(
        default=[],
        description="Addresses and networks (CIDR) of proxies and load balancers before the front: of them alone "
        "`X-Forwarded-For` is believed.",
    )

    @field_validator("header")
    @classmethod
    def _own(cls, written: str) -> str:
        if _TAKEN.fullmatch(written.lower()):
            raise ValueError(
                f"{written} is a header that the front or a version needs itself; write X-Assay-Version, or a name of "
                "your own"
            )
        return written

    @field_validator("address")
    @classmethod
    def _address(cls, written: str) -> str:
        try:
            ipaddress.ip_address(written)
        except ValueError:
            raise ValueError(
                f"{written!r} is no IP address; write 127.0.0.1, or 0.0.0.0 for all of this machine's"
            ) from None
        return written

    @field_validator("early_users")
    @classmethod
    def _users(cls, written: list[str]) -> list[str]:
        if "*" in written:
            raise ValueError(
                "`*` is nobody here; name users, and write how many of all have the candidate as `share` of ramp.steps"
            )
        return written

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, written: list[str]) -> list[str]:
        return [_network(text) for text in written]


def _network(text: str) -> str:
    """As it is usually written. Raises: ValueError for what is none, or is everyone."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = f"`{ipaddress.ip_network(text, strict=False)}`"
        except ValueError:
            meant = "e.g. `10.0.0.0/8`, `192.0.2.7` or `fd00::/8`"
        raise ValueError(f"{text!r} is no address and no network; write {meant}") from None
    if network.prefixlen == 0:
        raise ValueError(f"{text!r} is everyone, so every client could forge its address; name your proxies")
    if network.version == 6 and (network.network_address.ipv4_mapped or "%" in text):
        raise ValueError(f"{text!r}: write an IPv4 address as such, and none with a zone")
    return str(network)


_TOO_SHORT = "least_seconds is above most_seconds; write more for most_seconds, or leave it out"


class Step(Section):
    """One step of the ramp."""

    share: Annotated[float, Field(ge=0.0001, le=1)] = Field(
        description="Share of identified users who have the candidate, in hundredths of a percent."
    )
    users: int = Field(default=100, ge=1, description="Least users of the candidate before the next step.")
    least_seconds: Seconds = Field(default=60, description="Least time before the next step.")
    most_seconds: float = Field(
        default=86_400, gt=0, description="Time after which an undecided step is held for a person to decide."
    )

    @field_validator("share")
    @classmethod
    def _as_fronts_count(cls, written: float) -> float:
        """What is between would be another share to the front than to the ramp and the judge."""
        return round(written * 10_000) / 10_000

    @model_validator(mode="after")
    def _ordered(self) -> "Step":
        if self.least_seconds > self.most_seconds:
            raise ValueError(_TOO_SHORT)
        return self


class Shadow(Section):
    """Copies of requests go to the candidate before any user does; its answers are thrown away."""

    share: float = Field(default=1.0, ge=0, le=1, description="Share of requests copied; 0: no shadow.")
    requests: int = Field(default=200, ge=0, description="Least copies answered before the first user.")
    least_seconds: Seconds = Field(default=60, description="Least time.")
    most_seconds: float = Field(default=86_400, gt=0, description="Time after which it is held for a person.")

    @model_validator(mode="after")
    def _ordered(self) -> "Shadow":
        if self.least_seconds > self.most_seconds:
            raise ValueError(_TOO_SHORT)
        return self


def not_growing(shares: list[float]) -> str | None:
    """What is wrong with the shares of a ramp, if anything."""
    grows = sorted(set(shares)) == shares and shares[-1] == 1
    return (
        None
        if grows
        else f"shares {shares} do not grow from step to step up to 1; write e.g. 0.01, 0.1, 0.5 and 1"
    )


class Ramp(Section):
    """preflight → shadow → the steps → bake → retire."""

    shadow: Shadow = Shadow()
    steps: list[Step] = Field(
        default=[Step(share=0.01), Step(share=0.1), Step(share=0.5), Step(share=1.0)],
        min_length=1,
        description="Growing shares; the last is 1.",
    )
    bake_seconds: Seconds = Field(
        default=3600, description="Time at full share in which the old version stays warm for a roll-back."
    )

    @model_validator(mode="after")
    def _growing(self) -> "Ramp":
        if wrong := not_growing([step.share for step in self.steps]):
            raise ValueError(wrong)
        return self


class Guards(Section):
    """Hard limits, looked at every second: any of them turns back at once."""

    unready_seconds: Seconds = Field(default=2, description="Candidate down or not ready for as long.")
    error_share: Share = Field(default=0.5, description="Share of failed attempts within the window.")
    least_errors: int = Field(default=5, ge=1, description="Fewer failed attempts are no burst.")
    window_seconds: float = Field(default=5, gt=0, description="The window of a burst.")
    non_finite: int = Field(default=1, ge=1, description="Outputs with NaN or infinity.")


class LatencyTest(Section):
    """A quantile of latency, compared between users of the two versions."""

    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="Which one.")
    margin: float = Field(
        default=0.2, gt=0, description="Relative slowdown that is still no worse (0.2 = 20%)."
    )


class BusinessTest(Section):
    """A number between 0 and 1 per event that the application reports for a user; higher is better."""

    margin: float = Field(default=0.02, gt=0, lt=1, description="Loss of its mean that is still no worse.")


class Judge(Section):
    """When a difference is believed. Every test may be looked at as often as one likes."""

    level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="Chance, over the whole release, of turning back a candidate that is no different.",
    )
    error_margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01, description="More users with an error, in share of users, that is still no worse."
    )
    user_seconds: float = Field(
        default=30,
        gt=0,
        description="A user counts by what happens within so long of their first request in a step: errors, "
        "latencies, business events.",
    )
    latency: LatencyTest | None = Field(default=LatencyTest(), description="null: latency is not judged.")
    business: BusinessTest | None = Field(default=None, description="null: none is reported.")
    ratio_level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.001, description="Level of the sample-ratio check: users by version against the share."
    )
    guards: Guards = Guards()


class Drift(Section):
    """Inputs against the training reference, and predictions of the two versions at the same time."""

    window: int = Field(
        default=500, ge=50, description="Users that are compared at once, one prediction of each."
    )
    psi: float = Field(default=0.2, gt=0, description="Population stability index that counts as drift.")
    level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.001,
        description="Chance of any report in a release without drift, over all features and windows.",
    )
    action: Literal["warn", "pause", "rollback"] = Field(
        default="warn", description="What follows when the candidate's predictions drift."
    )


class Release(Section):
    """A release file, every default written out."""

    name: Name = Field(description="Name of the release; its folder under `folder`.")
    folder: str = Field(default="releases", description="Where state and logs of releases lie.")
    registry: Registry
    versions: Bundles = Bundles()
    serving: Serving = Serving()
    routing: Routing = Routing()
    ramp: Ramp = Ramp()
    judge: Judge = Judge()
    drift: Drift = Drift()
    webhook: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Told by POST of each step, hold, warning and roll-back.",
    )

    @model_validator(mode="after")
    def _identified(self) -> "Release":
        if self.routing.front == "nginx" and self.serving.jwt is None:
            raise ValueError("users are split by a verified identity")
        return self

    def placed(self) -> "Release":
        """The same with absolute paths: it can be driven and ended from any folder."""
        content = self.model_dump()
        _place(content, "folder")
        if "://" not in self.registry.uri:
            _place(content["registry"], "uri")
        for section, names in (
            (content["serving"]["jwt"], ("jwks",)),
            (content["serving"]["signatures"], ("secrets",)),
            (content["routing"]["tls"], ("certificate", "key")),
        ):
            for name in names:
                if section is not None and not section[name].startswith("env:"):
                    _place(section, name)
        return Release.model_validate(content)


def _place(section: dict[str, Any], name: str) -> None:
    section[name] = str(Path(section[name]).absolute())
