"""STS and IAM Credentials, strict: every claim of a JWT is checked against the provider's set-up, every token has an end.

Shapes: the discovery documents of sts.v1 and iamcredentials.v1; RFC 8693.
"""

import base64
import json
import secrets
import threading
import time
import urllib.parse

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

AUDIENCE = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/providers/host-a"
ISSUER = "https://enforcer.example.com/host-a"
HOST = "host-a"
SCOPES = ("https://www.googleapis.com/auth/bigquery", "https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/iam")
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
SUBJECT_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
JWK_MEMBERS = {"kty", "alg", "use", "kid", "n", "e", "x", "y", "crv"}


class Refused(Exception):
    """With RFC 6749's word for it."""

    def __init__(self, why, word):
        super().__init__(why)
        self.word = word


def check(condition, why, word="invalid_grant"):
    if not condition:
        raise Refused(why, word)


class Tokens:
    base_scope = SCOPES[1]

    def __init__(self, folder, jwks, faults):
        self.folder = folder
        self.jwks = jwks
        self.faults = faults
        self.lock = threading.Lock()
        self.minted = {}
        self.shown = set()
        self.log = open(folder / "tokens.jsonl", "a", buffering=1)

    def mint(self, kind, subject, scope, life_s, claims):
        token = "ya29." + secrets.token_urlsafe(48)
        expires = time.time() + life_s
        with self.lock:
            self.minted[token] = (kind, scope, expires, claims)
            entry = {"token": token, "kind": kind, "sub": subject, "scope": scope, "expires": expires, "claims": claims}
            self.log.write(json.dumps(entry) + "\n")
        return token

    def is_valid(self, token):
        with self.lock:
            kind_scope_expires = self.minted.get(token)
        return kind_scope_expires is not None and time.time() < kind_scope_expires[2]

    def holds(self, token, dataset):
        """Whether IAM lets whoever has this token at a dataset: service accounts and the estimator always, others by the groups of their window."""
        kind, _, _, claims = self.minted[token]
        is_bound = kind != "federated" or "/estimator/" in claims["sub"]
        return is_bound or f"ds:{dataset}" in claims.get("datasets", [])

    def exchange(self, method, path, headers, body):
        try:
            check(method == "POST" and path == "/v1/token", "no such method")
            check("authorization" not in headers, "an exchange carries no Authorization")
            form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
            check(form.get("grant_type") == GRANT, "grant_type")
            check(form.get("audience") == AUDIENCE, "audience", "invalid_target")
            check(form.get("requested_token_type") == TOKEN_TYPE, "requested_token_type")
            check(form.get("subject_token_type") in SUBJECT_TYPES, "subject_token_type")
            check(form.get("scope") in SCOPES, "scope")
            claims = self.verify(form.get("subject_token", ""))
        except (Refused, ValueError, jwt.PyJWTError) as error:
            return 400, {"error": getattr(error, "word", "invalid_grant"), "error_description": str(error)}
        life_s = int(min(3600, claims["exp"] - self.now()))
        token = self.mint("federated", claims["sub"], form["scope"], life_s, claims)
        return 200, {"access_token": token, "issued_token_type": TOKEN_TYPE, "token_type": "Bearer", "expires_in": life_s}

    def now(self):
        """By its own clock, which a test can set ahead or behind."""
        return time.time() + self.faults().get("sts_clock_s", 0)

    def verify(self, token):
        keys = [] if self.faults().get("jwks") == "none" else json.loads(self.jwks.read_text())["keys"]
        for key in keys:
            check(set(key) <= JWK_MEMBERS, f"JWK members {sorted(set(key) - JWK_MEMBERS)}")
        head = jwt.get_unverified_header(token)
        check(head.get("alg") == "ES256", "alg")
        matching = [key for key in keys if key.get("kid") == head.get("kid")]
        check(len(matching) == 1, "kid")
        required = ["iss", "aud", "sub", "iat", "exp"]
        claims = jwt.decode(token, jwt.PyJWK(matching[0]), algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER,
                            options={"require": required})
        now = self.now()
        check(now < claims["exp"], "it has expired")
        check(now - 86400 < claims["iat"] <= now, "iat is not in the last 24 hours")
        is_met = claims["exp"] - claims["iat"] <= 900 and self.faults().get("condition") != "fails"
        check(is_met, "the attribute condition: exp - iat <= 900", "unauthorized_client")
        check(len(claims["sub"].encode()) <= 127 and claims["sub"].startswith(HOST + "/"), "sub")
        if self.faults().get("jti") == "once":
            with self.lock:
                check(claims["jti"] not in self.shown, "its jti was shown before")
                self.shown.add(claims["jti"])
        return claims

    def of_a_key(self, method, path, headers, body):
        """A token for who holds the private key of a service account (RFC 7523), whose public half a test has put here."""
        try:
            check(method == "POST" and path == "/token", "no such method")
            form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
            check(form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer", "grant_type")
            # Some clients pad what RFC 7515 has unpadded, sign it so, and Google takes it: by hand, then.
            head, body, signature = form.get("assertion", "").split(".")
            key = serialization.load_pem_public_key((self.folder / "base.pub").read_bytes())
            decoded = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (head, body, signature)]
            key.verify(decoded[2], f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(decoded[1])
            check(json.loads(decoded[0])["alg"] == "RS256", "alg")
            check(claims["aud"] == "https://oauth2.googleapis.com/token", "aud")
            check(claims["iat"] <= time.time() < claims["exp"] <= claims["iat"] + 3600, "its time")
            check(SCOPES[1] in claims["scope"].split(), "scope")
        except (Refused, ValueError, OSError, InvalidSignature) as error:
            return 400, {"error": "invalid_grant", "error_description": str(error)}
        token = self.mint("base", claims["iss"], SCOPES[1], 3600, {})
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3599}

    def of_a_user(self, method, path, headers, body):
        """A token for who has a person's refresh token (RFC 6749 section 6), as application-default credentials hold one."""
        try:
            check(method == "POST" and path == "/o/oauth2/token", "no such method")
            asked = json.loads(body)
            check(asked["grant_type"] == "refresh_token", "grant_type")
            known = json.loads((self.folder / "user.json").read_text())
            check(all(asked[name] == known[name] for name in ("client_id", "client_secret", "refresh_token")), "who that is")
        except (Refused, ValueError, KeyError, OSError) as error:
            return 400, {"error": "invalid_grant", "error_description": str(error)}
        token = self.mint("base", "a person", SCOPES[1], 3600, {})
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3599}

    def impersonate(self, method, path, headers, body):
        account = path.removeprefix("/v1/projects/-/serviceAccounts/").removesuffix(":generateAccessToken")
        bearer = (headers.get("authorization") or "").removeprefix("Bearer ")
        if not self.is_valid(bearer):
            return 401, {"error": {"code": 401, "message": "Request had invalid authentication credentials.", "status": "UNAUTHENTICATED"}}
        try:
            check(method == "POST" and path.endswith(":generateAccessToken") and "@" in account, "no such method")
            check(self.minted[bearer][1] in SCOPES[1:], "the bearer's scope does not reach IAM Credentials")
            asked = json.loads(body)
            life_s = int(asked.get("lifetime", "3600s").removesuffix("s"))
            check(300 <= life_s <= 3600, "lifetime")
            check(asked.get("scope") == [SCOPES[0]], "scope")
        except (Refused, ValueError) as error:
            return 403, {"error": {"code": 403, "message": str(error), "status": "PERMISSION_DENIED"}}
        token = self.mint("service account", account, SCOPES[0], life_s, {})
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + life_s))
        return 200, {"accessToken": token, "expireTime": expires}
