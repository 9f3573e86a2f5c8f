// The API: takes a text, asks the AI service, and answers.
import express from "express";
import { GoogleAuth } from "google-auth-library";

const { AI_URL, AI_AUTH, PORT = 8080 } = process.env;
const auth = new GoogleAuth();
const app = express();
app.use(express.json());

app.get("/", (request, response) => response.json({ service: "api" }));
app.get("/health", (request, response) => response.json({ status: "healthy" }));

app.post("/analyze", async (request, response) => {
  if (!request.body?.text) return response.status(400).json({ error: "text is required" });
  if (!AI_URL) return response.status(503).json({ error: "AI_URL is not set" });
  try {
    const answer = await fetch(`${AI_URL}/predict`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(await authorization()) },
      body: JSON.stringify({ text: request.body.text }),
    });
    if (!answer.ok) return response.status(502).json({ error: `the AI service answered ${answer.status}` });
    response.json(await answer.json());
  } catch (error) {
    response.status(502).json({ error: `the AI service cannot be reached: ${error.message}` });
  }
});

// The ID token's audience is the called service's URL.
async function authorization() {
  if (AI_AUTH === "none") return {};
  const client = await auth.getIdTokenClient(AI_URL);
  const token = await client.idTokenProvider.fetchIdToken(AI_URL);
  return { Authorization: `Bearer ${token}` };
}

app.listen(PORT, "0.0.0.0", () => console.log(`listening on ${PORT}`));
