// An HTTP/1 server (Node's own) that answers with what it understood: `ADDRESS PORT`.

const crypto = require("crypto");
const http = require("http");

const server = http.createServer((request, response) => {
  const sum = crypto.createHash("sha256");
  let length = 0;
  request.on("data", (data) => {
    length += data.length;
    sum.update(data);
  });
  request.on("end", () => {
    const body = JSON.stringify({
      method: request.method,
      url: request.url,
      version: request.httpVersion,
      headers: request.rawHeaders,
      length,
      sum: sum.digest("hex"),
      trailers: request.rawTrailers,
    });
    response.setHeader("Content-Length", Buffer.byteLength(body));
    response.setHeader("X-Mixed-Case", "kept");
    response.sendDate = false;
    response.end(body);
  });
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.argv[3]), process.argv[2], 1024, () => console.log("ready"));
