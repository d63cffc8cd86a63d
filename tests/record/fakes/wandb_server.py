"""A stand-in for the W&B server on loopback: takes the uploads of `wandb sync` and hands them out to `wandb.Api`.

    python wandb_server.py FOLDER

It writes its address to FOLDER/address, and what it knows after each change to FOLDER/runs.json: by id of the run its
project, groupName, jobType, displayName, config, summary and the names of its uploaded files. Runs whose ids are in
FOLDER/refused it does not take.
"""

import gzip
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

ENTITY = "lab"
FOLDER = Path(sys.argv[1])
RUNS = {}
LOCK = threading.RLock()


def write(name, text):
    temporary = FOLDER / f".{name}"
    temporary.write_text(text)
    os.replace(temporary, FOLDER / name)


def project_of(name):
    return {"id": "p1", "name": name, "entity": {"id": "e1", "name": ENTITY}}


def upsert(asked):
    run = RUNS.setdefault(asked["name"], {"project": asked["project"], "config": {}, "summary": {}, "files": []})
    run.update({name: asked[name] for name in ("groupName", "jobType", "displayName") if asked.get(name)})
    config = json.loads(asked.get("config") or "{}")
    run["config"].update({name: item["value"] for name, item in config.items()})
    bucket = {"id": asked["name"], "name": asked["name"], "displayName": run["displayName"], "description": None}
    bucket |= {"config": None, "sweepName": None, "project": project_of(run["project"]), "historyLineCount": 0}
    return {"upsertBucket": {"bucket": bucket, "inserted": True}}


def node(name, run):
    config = json.dumps({field: {"value": value} for field, value in run["config"].items()})
    texts = {
        "tags": [],
        "sweepName": None,
        "state": "finished",
        "description": None,
        "notes": None,
        "user": {"name": ENTITY, "username": ENTITY},
    }
    texts |= {"createdAt": "2026-01-01T00:00:00", "heartbeatAt": None, "readOnly": True, "commit": None}
    own = {"id": name, "name": name, "projectId": "1", "displayName": run["displayName"], "group": run.get("groupName")}
    counts = {"historyLineCount": 0, "systemMetrics": "{}", "historyKeys": None}
    values = {"config": config, "summaryMetrics": json.dumps(run["summary"]), "jobType": run.get("jobType")}
    return {**texts, **own, **counts, **values}


def answer(operation, asked, address):
    if operation == "RunResumeStatus":
        return {"model": None}
    if operation == "UpsertBucket":
        refused = FOLDER / "refused"
        return None if refused.exists() and asked["name"] in refused.read_text() else upsert(asked)
    if operation == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{address}/upload/{asked['run']}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}
    if operation == "CreateArtifact":  # as if it were there already
        return {"createArtifact": {"artifact": {"id": "a1", "state": "COMMITTED", "artifactSequence": {"id": "s1"}}}}
    if operation == "Runs":
        nodes = [node(name, run) for name, run in RUNS.items() if run["project"] == asked["project"]]
        edges = [{"node": found, "cursor": found["name"]} for found in nodes]
        page = {"endCursor": None, "hasNextPage": False}
        if not nodes:
            return {"project": None}
        counts = {"internalId": "1", "runCount": len(nodes), "readOnly": True}
        return {"project": {**counts, "runs": {"edges": edges, "pageInfo": page}}}
    if operation in ("Viewer", "GetDefaultEntity"):
        viewer = {"id": "u1", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "email": "", "admin": False}
        return {"viewer": {**viewer, "flags": "{}", "teams": {"edges": []}, "apiKeys": {"edges": []}}}
    return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def reply(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            text = b""
            while length := int(self.rfile.readline(), 16):
                text += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(text) if self.headers.get("Content-Encoding") == "gzip" else text

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.body()
        _, _, run, name = self.path.split("/", 3)
        with LOCK:
            RUNS[run]["files"].append(name)
            write("runs.json", json.dumps(RUNS))
        self.reply({})

    def do_POST(self):
        content = json.loads(self.body() or b"{}")
        with LOCK:
            if self.path.endswith("/file_stream"):
                lines = content.get("files", {}).get("wandb-summary.json", {}).get("content", [])
                for line in lines:
                    RUNS[self.path.split("/")[-2]]["summary"] = json.loads(line)
                result = {"limits": {}}
            elif "query" not in content:  # its own telemetry
                result = {}
            else:
                words = content["query"].replace("(", " ").replace("{", " ").split()
                operation = next(after for word, after in pairwise(words) if word in ("query", "mutation"))
                asked = content.get("variables") or {}
                data = answer(operation, asked, f"http://{self.headers['Host']}")
                result = {"errors": [{"message": "no room for more runs"}]} if data is None else {"data": data}
            write("runs.json", json.dumps(RUNS))
        self.reply(result)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    write("runs.json", "{}")
    write("address", f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()
