// What becomes of streams that do not go the usual way, with Node's own HTTP/2 at both ends.
//
// `server ADDRESS PORT`: /large sends 48 MiB; /early answers at once and goes on reading; /upload reads and says how
// much; /log answers with what it saw of those as JSON.
// `client ADDRESS PORT`: prints as JSON
// `cancelled`  the code that the server saw when the client gave up in the middle of an upload
// `refused`    the code that the client saw when the server reset the stream in the middle of an answer
// `early`      what the server got of a request that it had answered before
// `stalled`    how much the server had sent to a client that did not read, and whether all of it came in the end

const http2 = require("http2");

const [, , role, address, port] = process.argv;
const LARGE = 48 << 20;
const PIECE = Buffer.alloc(1 << 16, "stream");

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function server() {
  const log = { sent: 0 };
  const server = http2.createServer();
  server.on("stream", async (stream, headers) => {
    const path = headers[":path"];
    stream.on("error", () => {});
    if (path === "/log") {
      stream.respond();
      stream.end(JSON.stringify(log));
    } else if (path === "/large") {
      log.sent = 0;
      stream.respond({ "content-length": LARGE });
      while (log.sent < LARGE) {
        log.sent += PIECE.length;
        if (!stream.write(PIECE)) await new Promise((resolve) => stream.once("drain", resolve));
      }
      stream.end();
    } else if (path === "/reset") {
      stream.respond();
      stream.write("half of it");
      await sleep(200);
      // INTERNAL_ERROR.
      stream.destroy(new Error("on purpose"));
    } else {
      let length = 0;
      stream.on("data", (data) => (length += data.length));
      stream.on("close", () => (log[path] = [length, stream.rstCode]));
      if (path === "/early") {
        stream.respond();
        stream.end("early");
      } else {
        stream.on("end", () => {
          if (stream.destroyed) return;
          stream.respond();
          stream.end(String(length));
        });
      }
    }
  });
  server.listen(Number(port), address, () => console.log("ready"));
}

async function client() {
  const session = http2.connect(`http://${address}:${port}`);
  session.on("error", (error) => {
    console.error(error.message);
    process.exit(1);
  });
  const open = (path, method = "GET", signal = undefined) => {
    const stream = session.request({ ":path": path, ":method": method }, { endStream: method === "GET", signal });
    stream.on("error", () => {});
    stream.closed_ = new Promise((resolve) => stream.on("close", () => resolve(stream.rstCode)));
    return stream;
  };
  const text = async (stream) => {
    let body = "";
    for await (const data of stream) body += data;
    return body;
  };
  const log = async () => JSON.parse(await text(open("/log")));
  const until = async (condition) => {
    for (let left = 100; left > 0; left -= 1) {
      const seen = await log();
      if (condition(seen)) return seen;
      await sleep(50);
    }
    return log();
  };

  // CANCEL.
  const giveUp = new AbortController();
  open("/upload", "POST", giveUp.signal).write(PIECE);
  await sleep(300);
  giveUp.abort();
  const cancelled = (await until((seen) => seen["/upload"]))["/upload"];

  const reset = open("/reset");
  reset.resume();
  const refused = await reset.closed_;

  const early = open("/early", "POST");
  early.write(PIECE);
  const answer = await text(early);
  for (let left = 30; left > 0; left -= 1) early.write(PIECE);
  early.end();
  const got = (await until((seen) => seen["/early"]))["/early"];

  const large = open("/large");
  await sleep(1_500);
  const { sent } = await log();
  let came = 0;
  for await (const data of large) came += data.length;
  const whole = open("/upload", "POST");
  whole.end(PIECE);
  console.log(
    JSON.stringify({
      cancelled,
      refused,
      early: [answer, got],
      stalled: { sent, missing: LARGE - came, code: large.rstCode },
      after: await text(whole),
    }),
  );
  session.close();
}

if (role === "server") server();
else client();
