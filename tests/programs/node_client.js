// GETs the URL given and prints the answer, with the peer that the socket names.
const http = require("node:http");

const request = http.get(process.argv[2], (response) => {
  // By the end of the answer the socket may be gone.
  const peer = `${response.socket.remoteAddress}:${response.socket.remotePort}`;
  let body = "";
  response.on("data", (chunk) => (body += chunk));
  response.on("end", () => {
    console.log(JSON.stringify({ status: response.statusCode, peer, body: JSON.parse(body) }));
  });
});
request.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
