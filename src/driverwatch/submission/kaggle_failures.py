"""What the official client says when it fails, as one sentence each with the way out.

The words were collected by running the clients 2.2.4 and 1.7.4.5 without a token, without a network, and against a local
server that answers with each status. The server's own message often replaces the status, so both are looked for.
"""

import re

from driverwatch.submission import kaggle_credentials as credentials

RULES = "https://www.kaggle.com/c/{slug}/rules"
LIST = "https://www.kaggle.com/c/{slug}/submissions"
LAST = 3  # lines of the client that are shown when nothing is recognised

NETWORK = (
    "could not reach Kaggle (no network, a proxy, or Kaggle is down); check the connection, then run the same command "
    "again: it goes on"
)
FULL = "the disk is full; free space, then run the same command again: it goes on"
BROKEN = "the client itself is broken; remove .venv-kaggle and run again, or name another client with KAGGLE=<path>"
LIMIT = "today's submissions are used up (days are UTC); run the same command tomorrow"
CLOSED = "the competition takes no submissions any more; see {list}"
REFUSED_RULES = (
    "this account may not (403): most likely it has not accepted the rules; accept them at {rules} (Kaggle may ask for "
    "a verified phone number first), then run again"
)
NO_SUCH = (
    "Kaggle knows no competition {slug} (404), or this account may not see it; mend slug: in the data set's YAML (the "
    "last part of the competition's address)"
)
BUSY = "Kaggle asks for fewer requests (429); wait some minutes, then run the same command again: it goes on"
TROUBLE = "Kaggle itself is in trouble (a 5xx answer); run the same command again later: it goes on"
BAD_FILE = (
    "Kaggle refused the submission (400): likely the file is not this competition's, today's submissions are used up, "
    "or the competition takes none any more; see {list}"
)
BAD_REQUEST = "Kaggle refused the request (400); is slug: {slug} in the data set's YAML the last part of its address?"
NOT_ARRIVED = "the upload did not arrive; check the connection, then run the same command again"

SENTENCES = (  # the first that is found in the client's words wins
    (r"no space left on device|disk quota exceeded", FULL),
    (r"(module|import)\w*error|unrecognized arguments|invalid choice", BROKEN),
    (r"failed to resolve|max retries exceeded|connectionerror|connection (refused|reset|aborted)|newconnectionerror", NETWORK),
    (r"network is unreachable|proxyerror|sslerror|timed? ?out|remotedisconnected|name resolution", NETWORK),
    (r"submission allowance|submissions? (per|for) (the )?day|daily (submission|limit)|submission limit", LIMIT),
    (r"deadline|no longer accept|not accept\w* submissions|competition (has|is) (ended|closed|over)", CLOSED),
    (r"accept\b.*\brules|\b403\b.{0,3}(client error|forbidden)|permission .*denied|^forbidden|don't have access", REFUSED_RULES),
    (r"could not find competition|competition not found|resource was not found|\b404\b.{0,3}(client|not)|^not ?found", NO_SUCH),
    (r"\b429\b.{0,3}(client error|too many)|too many requests|rate limited", BUSY),
    (r"\b5\d\d\b.{0,3}(server error|internal|bad gateway|service)|^internal server error|on kaggle's side", TROUBLE),
    (r"could not submit to competition", NOT_ARRIVED),
)  # fmt: skip
BAD = r"\b400\b.{0,3}(client error|bad request)|^bad request"
NO_TOKEN = r"authentication required|could not find kaggle\.json|missing (username|key) in configuration"
REFUSED_TOKEN = r"\b401\b.{0,3}(client error|unauthorized)|^unauthorized|unauthenticated|invalid credentials"


def sentence(words: str, slug: str, uploading: bool) -> str:
    """What went wrong, judged by the client's words (redacted already), and what to do about it."""
    if _found(NO_TOKEN, words) or _found(REFUSED_TOKEN, words):
        return _token()
    links = {"slug": slug, "rules": RULES.format(slug=slug), "list": LIST.format(slug=slug)}
    sentences = (*SENTENCES, (BAD, BAD_FILE if uploading else BAD_REQUEST))
    known = next((text for pattern, text in sentences if _found(pattern, words)), None)
    said = _last(words)
    if known is None:
        return f"the client failed; its last words: {said}"
    return known.format(**links) + (f"; its words: {said}" if known in (BAD_FILE, BAD_REQUEST, REFUSED_RULES) else "")


def _token() -> str:
    """No token, or one that Kaggle does not take: the client says the same of both, so look where tokens lie."""
    if places := credentials.places():
        return f"Kaggle refused the token in {places[0]} (401; expired, withdrawn or mistyped); {credentials.how_to()}"
    return f"no Kaggle token is there; {credentials.how_to()}"


def _found(pattern: str, words: str) -> bool:
    return re.search(pattern, words, re.IGNORECASE | re.MULTILINE) is not None


def _last(words: str) -> str:
    lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
    return " | ".join(line[:300] for line in lines[-LAST:]) or "(none)"
