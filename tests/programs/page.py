"""Looks at a page in headless Chromium, by commands on standard input; each is answered with a line of JSON.

`URL DIRECTORY [SCREENSHOTS]`; the directory is for the browser's profile.
run SCRIPT        what the script returns
press KEY...      Tab, Enter, Escape
size WIDTH        so many pixels wide, on a narrow screen as on a telephone
dark              as somebody sees it who prefers dark pages
shot NAME         a picture of the whole page, if there is a directory for them
console           what the console said since it was asked last
requests          the addresses that were asked since this was asked last
"""

import base64
import json
import os
import subprocess
import sys
import urllib.request

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c"}
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

url, directory = sys.argv[1:3]
shots = sys.argv[3] if len(sys.argv) > 3 else None


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"content-type": "application/json"}, method=method)
    # Never by a proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return json.load(answer)["value"]


def cdp(command, **parameters):
    return ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})


def log(kind):
    return ask("POST", "/se/log", {"type": kind})


def press(key):
    keys = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")]
    ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})


def requests():
    events = [json.loads(entry["message"])["message"] for entry in log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return sorted(set(sent))


def shot(name):
    if shots:
        size = cdp("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        with open(os.path.join(shots, name + ".png"), "wb") as file:
            file.write(base64.b64decode(picture))


def run(command, rest):
    if command == "run":
        return ask("POST", "/execute/sync", {"script": rest, "args": []})
    if command == "press":
        return [press(key) for key in rest.split()]
    if command == "size":
        width = int(rest)
        return cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    if command == "dark":
        return cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    if command == "shot":
        return shot(rest)
    return {"console": lambda: log("browser"), "requests": requests}[command]()


driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
try:
    for line in driver.stdout:
        if "started successfully on port " in line:
            base = "http://127.0.0.1:" + line.rsplit(" ", 1)[1].strip(".\n")
            break
    options = {"args": [*FLAGS, "--user-data-dir=" + directory, "about:blank"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
    session = ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
    base += "/session/" + session["sessionId"]
    # What the browser shows by itself when it starts is not the page's.
    log("performance")
    ask("POST", "/url", {"url": url})
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        print(json.dumps(run(command, rest)), flush=True)
    ask("DELETE", "")
finally:
    driver.terminate()
    driver.wait()
