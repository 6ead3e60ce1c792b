// What an HTTP/2 server says before its answers (1xx), with Node's own HTTP/2 at both ends.
//
// `server ADDRESS PORT`: /hints sends 103 and answers only once /heard was asked for; /flood sends 2,000 of 103 and
// answers; a request that expects 100 gets that and its body's length, but 417 for /refuse.
// `client ADDRESS PORT`: prints as JSON what came of each, in order.

const http2 = require("http2");

const [, , role, address, port] = process.argv;
const LINK = "</style.css>; rel=preload; as=style";
const FLOOD = 2_000;

function server() {
  let answerHints;
  const server = http2.createServer((request, response) => {
    if (request.url === "/hints") {
      response.writeEarlyHints({ link: LINK, "x-why": "early" });
      answerHints = () => response.end("late");
    } else if (request.url === "/heard") {
      answerHints();
      response.end();
    } else {
      for (let at = 0; at < FLOOD; at += 1) {
        response.stream.additionalHeaders({ ":status": 103, link: LINK, "x-at": String(at) });
      }
      response.end("after all");
    }
  });
  server.on("checkContinue", (request, response) => {
    if (request.url === "/refuse") {
      response.writeHead(417);
      response.end();
      return;
    }
    response.writeContinue();
    let length = 0;
    request.on("data", (data) => (length += data.length));
    request.on("end", () => response.end(`${length} bytes`));
  });
  server.listen(Number(port), address, () => console.log("ready"));
}

function client() {
  const session = http2.connect(`http://${address}:${port}`);
  session.on("error", (error) => {
    console.error(error.message);
    process.exit(1);
  });
  const ask = (headers, heard) =>
    new Promise((resolve) => {
      const seen = [];
      const request = session.request(headers);
      const expects = headers.expect !== undefined;
      request.on("headers", (head) => {
        // Has an event of its own.
        if (head[":status"] === 100) return;
        seen.push([head[":status"], head.link ?? null]);
        heard?.();
      });
      request.on("continue", () => {
        seen.push([100, null]);
        request.end("a body");
      });
      let body = "";
      request.on("response", (head) => seen.push([head[":status"], null]));
      request.on("data", (data) => (body += data));
      request.on("close", () => resolve({ seen, body }));
      if (!expects) request.end();
    });
  const post = (path) => ({ ":method": "POST", ":path": path, expect: "100-continue" });
  (async () => {
    const hints = await ask({ ":path": "/hints" }, () => session.request({ ":path": "/heard" }).end());
    const flood = await ask({ ":path": "/flood" });
    const wanted = await ask(post("/sum"));
    const refused = await ask(post("/refuse"));
    const [last] = flood.seen.slice(-1);
    console.log(
      JSON.stringify({ hints, flood: { heard: flood.seen.length - 1, last, body: flood.body }, wanted, refused }),
    );
    session.close();
  })();
}

if (role === "server") server();
else client();
