// GETs the URL given and prints the answer, with the peer that the socket names.
const http = require("node:http");

const request = http.get(process.argv[2], (response) => {
  let body = "";
  response.on("data", (chunk) => (body += chunk));
  response.on("end", () => {
    const { remoteAddress, remotePort } = response.socket;
    console.log(JSON.stringify({ status: response.statusCode, peer: `${remoteAddress}:${remotePort}`, body: JSON.parse(body) }));
  });
});
request.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
