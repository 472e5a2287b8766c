"""What `make demo` runs: the whole path on examples/helpdesk, then one question to the running server.

Uses nothing but the `luthier` command and HTTP, as a user would. The project lands in ./demo; a second call finds
everything made and only asks again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUESTION = "I lost my battery key. How do I get a new one, and what does it cost?"


def main() -> int:
    project = Path(sys.argv[1] if len(sys.argv) > 1 else "demo").resolve()
    luthier = [sys.executable, "-m", "luthier.cli"]
    if not (project / "luthier.yaml").exists():
        shutil.copytree(HERE / "helpdesk", project, ignore=shutil.ignore_patterns("make_documents*", "__pycache__"))
        print(f"Copied examples/helpdesk to {project}\n")
    began = time.monotonic()
    code = subprocess.run([*luthier, "run", "-C", str(project)], check=False).returncode
    if code:
        return code
    print(f"\nThe whole path took {(time.monotonic() - began) / 60:.1f} minutes. Starting the server ...", flush=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = "demo-key"
    server = subprocess.Popen([*luthier, "serve", "-C", str(project), "--port", str(port)],
                              env={**os.environ, "LUTHIER_API_KEY": key}, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        if not wait(url, server):
            print("error: the server did not start", file=sys.stderr)
            return 1
        reply = post(f"{url}/v1/chat/completions", key,
                     {"model": json.loads(get(f"{url}/v1/models", key))["data"][0]["id"],
                      "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 120})
    finally:
        server.terminate()
        server.wait(timeout=30)
    message = reply["choices"][0]["message"]
    print(f"\nQuestion: {QUESTION}\nAnswer ({reply['model']}): {message['content'].strip()}")
    for citation in message.get("citations", []):
        page = f", page {citation['page']}" if citation.get("page") else ""
        print(f"  [{citation['n']}] {citation['path']}{page}")
    where = os.path.relpath(project)
    print(f"\nSee for yourself:\n  .venv/bin/luthier serve -C {where}     # chat page and API\n"
          f"  .venv/bin/luthier show evaluate -C {where}   # the report behind the verdict\n"
          f"  .venv/bin/luthier show prepare -C {where}    # the data card")
    return 0


def wait(url: str, server: subprocess.Popen[bytes], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2) as reply:
                if json.load(reply).get("status") == "ok":
                    return True
        except (OSError, ValueError):
            pass
        time.sleep(0.3)
    return False


def get(url: str, key: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read()


def post(url: str, key: str, body: dict) -> dict:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers={
        "Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: the server answered {error.code}: {error.read().decode()}") from None


if __name__ == "__main__":
    sys.exit(main())
