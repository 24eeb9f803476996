"""Against code not written here: bhttp-js from npm, run by node.  Skipped where there is none."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.bhttp.stream import content_piece, end_message, start_request, start_response
from tests.needs import require

PACKAGE, INTEGRITY = (
    "bhttp-js@0.2.1",
    "sha512-UWDKncJvSOKzY8d7nUw6rkwaVxDFI4+GadqbdgJ6jtPe2eiTVc0IfLKZOD4f+s9HjUQ2K0kbh4OuXvB44ns/Zg==",
)
SCRIPT = """
const { BHttpEncoder, BHttpDecoder } = require("bhttp-js");
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const text = (data) => Buffer.from(data).toString("base64");
const jobs = JSON.parse(require("fs").readFileSync(0, "utf8"));
(async () => {
  const done = [];
  for (const job of jobs) {
    if (job.decode === "request" || job.decode === "response") {
      const decoder = new BHttpDecoder();
      const found = job.decode === "request"
        ? decoder.decodeRequest(bytes(job.data)) : decoder.decodeResponse(bytes(job.data));
      done.push({ method: found.method, url: found.url, status: found.status,
                  headers: [...found.headers], body: text(await found.arrayBuffer()) });
    } else if (job.url) {
      const body = job.body === undefined ? undefined : bytes(job.body);
      const made = new Request(job.url, { method: job.method, headers: job.headers, body });
      done.push(text(await new BHttpEncoder().encodeRequest(made)));
    } else {
      const made = new Response(bytes(job.body), { status: job.status, headers: job.headers });
      done.push(text(await new BHttpEncoder().encodeResponse(made)));
    }
  }
  console.log(JSON.stringify(done));
})();
"""


@pytest.fixture(scope="session")
def bhttp_js(request: pytest.FixtureRequest):
    """A function that gives jobs to bhttp-js; the package is fetched once and kept in pytest's cache."""
    node, npm = require("node", "npm")
    folder = Path(request.config.cache.mkdir("bhttp-js"))
    if not (folder / "node_modules" / "bhttp-js").exists():
        install = [
            npm,
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(folder),
            PACKAGE,
        ]
        try:
            subprocess.run(install, capture_output=True, check=True, timeout=30, cwd=folder)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"bhttp-js cannot be fetched: {type(error).__name__}")
    lock = json.loads((folder / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/bhttp-js"]["integrity"] == INTEGRITY

    def run(jobs: list[dict[str, object]]) -> list:
        made = subprocess.run(
            [node, "-e", SCRIPT],
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            timeout=30,
            cwd=folder,
        )
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)

    return run


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


REQUESTS = [
    Request("GET", "https", "a.example", "/x", (("accept", "text/plain"),)),
    Request("POST", "https", "a.example:8443", "/", (("content-type", "a/b"), ("x", "1")), bytes(range(256))),
    Request("PUT", "https", "a.example", "/long", (("x-long", "v" * 3000),), b"c" * 70_000),
]
RESPONSES = [
    Response(200, (("content-type", "text/plain"), ("x-a", "1")), b"hello"),
    Response(404, (("x-long", "v" * 3000),), b"c" * 70_000),
    Response(599, (), bytes(range(256))),
]


def test_bhttp_js_reads_what_we_write_in_both_forms(bhttp_js) -> None:
    jobs = []
    for request in REQUESTS:
        stream = start_request(request) + content_piece(request.content) + end_message()
        jobs += [{"decode": "request", "data": encoded(data)} for data in (request.to_bytes(), stream)]
    for response in RESPONSES:
        stream = (
            start_response(response.status, response.fields) + content_piece(response.content) + end_message()
        )
        jobs += [{"decode": "response", "data": encoded(data)} for data in (response.to_bytes(), stream)]
    found = iter(bhttp_js(jobs))
    for request in REQUESTS:
        for got in (next(found), next(found)):
            assert got["method"] == request.method
            assert got["url"] == f"https://{request.authority}{request.path}"
            assert base64.b64decode(got["body"]) == request.content
            assert dict(request.fields).items() <= dict(got["headers"]).items()
    for response in RESPONSES:
        for got in (next(found), next(found)):
            assert got["status"] == response.status
            assert base64.b64decode(got["body"]) == response.content
            assert dict(response.fields).items() <= dict(got["headers"]).items()


def test_we_read_what_bhttp_js_writes(bhttp_js) -> None:
    jobs: list[dict[str, object]] = []
    for request in REQUESTS:
        job = {"url": f"https://{request.authority}{request.path}", "method": request.method}
        job |= {
            "headers": list(request.fields),
            **({"body": encoded(request.content)} if request.content else {}),
        }
        jobs.append(job)
    for response in RESPONSES:
        job = {"status": response.status, "headers": list(response.fields), "body": encoded(response.content)}
        jobs.append(job)
    found = [base64.b64decode(text) for text in bhttp_js(jobs)]
    for request, data in zip(REQUESTS, found[: len(REQUESTS)], strict=True):
        got = Request.from_bytes(data)
        assert (got.method, got.authority, got.path) == (request.method, request.authority, request.path)
        assert got.content == request.content
        assert set(request.fields) <= set(got.fields)
    for response, data in zip(RESPONSES, found[len(REQUESTS) :], strict=True):
        got = Response.from_bytes(data)
        assert (got.status, got.content) == (response.status, response.content)
        assert set(response.fields) <= set(got.fields)
