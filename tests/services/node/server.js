// A service of plain Node, without dependencies; delivered by the tests.
const { createServer } = require("node:http");
const { COMMIT_SHA, K_REVISION, PORT } = process.env;

const answers = {
  "/version": { commit: COMMIT_SHA, revision: K_REVISION },
  "/health": { status: "ok" },
};

const server = createServer((request, response) => {
  const answer = answers[request.url];
  response.writeHead(answer ? 200 : 404, { "Content-Type": "application/json" });
  response.end(JSON.stringify(answer ?? {}));
});
process.on("SIGTERM", () => {
  console.log("closing");
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
server.listen(Number(PORT), "0.0.0.0");
