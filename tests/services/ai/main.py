"""The AI service: says how a text feels."""

import re

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(title="AI service")

GOOD = {"excellent", "good", "great", "happy", "like", "love", "nice"}
BAD = {"awful", "bad", "hate", "poor", "sad", "terrible", "wrong"}


class Text(BaseModel):
    text: str


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.post("/predict")
async def predict(body: Text):
    words = re.findall(r"[a-z]+", body.text.lower())
    score = sum(word in GOOD for word in words) - sum(word in BAD for word in words)
    label = "positive" if score > 0 else "negative" if score < 0 else "neutral"
    return {"label": label, "score": score}
